"""`epsilon` with the arguments that tests of accounting vary, in the order in which they do."""

from hushtune.privacy.accounting import epsilon


def gaussian(noise_multiplier, sampling_probability, steps, delta=1e-5, **rest):
    return epsilon(
        mechanism="gaussian",
        noise_multiplier=noise_multiplier,
        sampling_probability=sampling_probability,
        steps=steps,
        delta=delta,
        **rest,
    )


def laplace(noise_multiplier, sampling_probability, steps, delta=0.0, **rest):
    return epsilon(
        mechanism="laplace",
        noise_multiplier=noise_multiplier,
        sampling_probability=sampling_probability,
        steps=steps,
        delta=delta,
        **rest,
    )
