"""One visitor, whatever the transport: a place, a session, and pieces that become slots of one frame."""
