//! What a store shows before or after a command.

use spindle_engine::sim::Image;
use spindle_format::check::{Examination, examine};

use super::broken::Broken;
use super::contents::{Readable, readable};
use super::source::Base;

/// The contents and findings of an image.
pub struct State {
    /// The readable contents.
    pub readable: Readable,
    /// The findings of a check.
    pub examined: Examination,
}

impl State {
    /// Examines an image.
    ///
    /// # Errors
    /// The image holds no store that can be loaded.
    pub fn of(base: &Base, image: &Image) -> Result<State, Broken> {
        let lost = |error| Broken::new("a store that could be loaded can be loaded", format!("{error}"));
        let examined = examine(&base.medium(image)).map_err(lost)?;
        Ok(State { readable: readable(&base.ground, image, &examined.store), examined })
    }
}
