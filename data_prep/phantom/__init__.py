"""Thyroid ultrasound phantoms: from ACR descriptors to a B-mode picture, its exact outline, its grade and its readings.

Everything is a pure function of a key (and descriptors), so it runs under jit and vmap, on every device. The unit of
length is ``u = min(h, w)``, so that the appearance does not depend on the size. The picture is made in these steps:

1. Scatterers: complex Gaussian noise whose strength (dB) is painted tissue by tissue, then blurred by the point spread
   function of the probe. Its envelope is Rayleigh distributed, mean / standard deviation = sqrt(pi / (4 - pi)) = 1.91
   (fully developed speckle). Capsules, vessel walls and calcifications add a coherent echo: there the envelope is
   Rician.
2. Attenuation summed along the beam, without the part that the depth gain corrects. It makes tissue brighter behind
   fluid, and it casts a shadow behind calcium.
3. Log compression to a stated dynamic range (60 dB).

The outline is a star-shaped curve, an ellipse times a short Fourier series:

    r(t) = e(t) (1 + sum_n a_n cos nt + b_n sin nt) + offset

So area and membership are exact, and a reader's bias or smoothing changes a few numbers only.

Simplifications: a linear probe with parallel beams; a point spread function that does not change with depth; single
scattering; no refraction, so no edge shadows; a stylised transverse section as anatomy. Each descriptor is clearly
visible, unlike in real pictures. Phantoms show that the code works and how readers disagree. They say nothing about
accuracy on patients.

Sources: Wagner, Smith, Sandrik, Lopez, *Statistics of speckle in ultrasound B-scans*, IEEE Trans Sonics Ultrason 30
(1983) 156-163. Kuhl and Giardina, *Elliptic Fourier features of a closed contour*, Comput Graph Image Process 18
(1982) 236-258; the curve here is a polar variant of theirs.
"""

from data_prep.phantom.dataset import CARD, Phantom, PhantomOptions, phantom, read, several_views

__all__ = ["CARD", "Phantom", "PhantomOptions", "phantom", "read", "several_views"]
