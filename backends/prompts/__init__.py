"""What the model reads: messages rendered for a chat server, and the prompt that template and tokenizer make."""
