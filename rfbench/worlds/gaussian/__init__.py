"""The analytic world: Gaussian data, an exact denoiser and a linear reward, so that every optimum is known."""
