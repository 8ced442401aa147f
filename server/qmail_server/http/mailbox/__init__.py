"""The mailbox API: users, mailboxes, messages, search and updates over the one mail store."""
