"""Build a data set from any folder of ultrasound images, without a line of Python.

::

    python -m data_prep build folder --name NAME --source DIR --out DIR [--dry-run] [options]

``options`` holds what a user can say, ``layout`` finds images and masks by their names, ``table`` understands the
columns of a table, ``rows`` finds the image of a row, ``grades`` the order of the grades. ``drawings`` reads polygons,
``masks`` decides which pixels of a mask are the nodule. ``planning`` joins all of it to a
:class:`~data_prep.folder.planning.Plan` without reading a picture, ``read`` makes its records, and ``report`` says what
was understood.
"""
