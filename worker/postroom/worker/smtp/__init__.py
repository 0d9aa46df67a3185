"""SMTP: bytes → outcome. Connects, signs in, sends one mail at a time and says what the server answered.

Knows no database: a `Session` returns a `Delivery`, and what becomes of the mail is decided elsewhere.
"""
