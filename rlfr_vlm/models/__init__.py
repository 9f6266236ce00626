"""What is known of each model family: towers, vision tokens, image tokens, batch keys, latents."""
