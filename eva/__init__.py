"""The pure language that provider, broker and cmdlets speak: names, consents, tokens, messages, endings. No I/O, no clock."""
