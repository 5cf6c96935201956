//! What every engine does, as tests any engine can be put to.
