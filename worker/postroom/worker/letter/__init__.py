"""From a mail's content to the bytes of a letter (RFC 5322): job → bytes. Knows neither database nor SMTP."""
