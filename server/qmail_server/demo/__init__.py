"""`qmail demo`: a whole network on this machine, two people, a tour, and then two node APIs to play with."""
