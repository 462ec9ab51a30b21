//! Path of a request from a handler to the generator and back, and its books.

pub(crate) mod books;
pub(crate) mod estimate;
pub(crate) mod fill_in;
pub(crate) mod in_flight;
pub(crate) mod timings;
pub(crate) mod work;
