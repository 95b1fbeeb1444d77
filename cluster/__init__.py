"""Streams on many hosts with cards: what is wanted, where it goes, and what is done when a host is lost.

Plain state with the time as an argument; no socket, thread or clock. A stream host (`warpfuse host`) is the unit: one
process a card, and streams are placed on it.

config      the cluster file
packing     load of a stream, room on a card, and which stream goes where
lease       until when a host may run a stream that its controller does not confirm
ledger      frames of a stream over all its lives
reconcile   from what is wanted and what hosts tell to what is to be done
rollout     opening the hosts anew with other keys, one after the other
"""
