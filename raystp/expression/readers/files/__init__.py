"""Files and values as other programs write them: prefixed and packed names, tables as text, numbers as text."""
