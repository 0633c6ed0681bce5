//! The harness itself: what it must find and what must hold, from a few seeds.

mod damage;
mod leave_out;
