"""Encoding in bfloat16 or int8, with torch alone."""
