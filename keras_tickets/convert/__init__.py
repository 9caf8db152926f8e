"""From a trained model to a file for a phone or a server, checked on the way.

Nothing here is trusted: the written file is loaded in the runtime that will run it,
its outputs are compared with those of Keras, and its zeros are counted again.
"""
