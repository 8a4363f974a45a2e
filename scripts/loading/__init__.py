"""The parts of `scripts/load.py`: a backend, a client and peers to measure a gateway with.

Client and backend are protocols on the bare transports, so that they cost far less than what stands
between them. Needs nothing of the gateway; uvloop where it is installed, rich for the output.
"""
