"""One file for each kind of notification channel: webhook, command, SMTP, apprise. ``send`` chooses among them."""
