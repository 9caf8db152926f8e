"""The ticket: a Keras model behind masks, and its file."""

from keras_tickets.ticket.ticket import Ticket

__all__ = ["Ticket"]
