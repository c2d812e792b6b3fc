r"""Thyroid ultrasound phantoms: ACR descriptors in; a B-mode picture, its exact outline, its grade and what readers
made of it out.

Everything is a pure function of a key (and descriptors), so it can be jitted, vmapped and run where the model runs.
The picture is made in the order of the physics, with ``u = min(h, w)`` the unit of length, so that the look does not
change with the size:

1. scatterers: complex Gaussian noise whose strength (dB) is painted tissue by tissue, then blurred by the point
   spread function of the
   probe. Its envelope is Rayleigh distributed, mean / standard deviation = sqrt(pi / (4 - pi)) = 1.91 (fully
   developed speckle; Wagner, Smith, Sandrik, Lopez, *Statistics of speckle in ultrasound B-scans*, IEEE Trans Sonics
   Ultrason 30 (1983) 156-163). Capsules, vessel walls and calcifications add a coherent echo: there the envelope is
   Rician.
2. attenuation summed along the beam: more light behind fluid, a shadow behind calcium; what the depth gain left
   uncorrected.
3. log compression to a stated dynamic range (60 dB).

The outline is a star-shaped curve, an ellipse times a short Fourier series: ``r(t) = e(t) (1 + sum_n a_n cos nt + b_n
sin nt) + offset`` (the polar relative of the elliptical Fourier features of Kuhl and Giardina, Comput Graph Image
Process 18 (1982) 236-258), so area and membership are exact and a reader's bias or smoothing acts on a handful of
numbers.

Simplified: a linear probe with parallel beams and a point spread function that does not change with depth; single
scattering; no refraction, so no edge shadows; anatomy is a stylised transverse section; the picture decides every
descriptor, which no real one does. Phantoms show that code works and how readers disagree. They say nothing about
accuracy on patients.
"""

from data_prep.phantom.dataset import CARD, Phantom, PhantomOptions, phantom, read, several_views

__all__ = ["CARD", "Phantom", "PhantomOptions", "phantom", "read", "several_views"]
