"""The multimodal VAE in torch: Gaussian algebra, encoders, decoders, the model as a folder. Start at `vae.py`."""
