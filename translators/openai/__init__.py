"""What the two OpenAI protocols share: fields, tools, content, and errors before the head."""
