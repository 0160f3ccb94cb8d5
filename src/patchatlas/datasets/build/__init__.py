"""Dense features of a data set: cut into units, encoded in batches of one shape, stored, journalled, merged."""
