"""What the two OpenAI protocols share: fields, refusals, content, tools, and errors before the head."""
