//! Module-specific information about a bdev (`driver_specific` of `bdev_get_bdevs`): named values, in order.
//!
//! The control plane converts it to JSON.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// True or false.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A number that may be negative.
    Signed(i64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Detail>),
    /// Named values, in this order.
    Object(Vec<(&'static str, Detail)>),
}

impl Detail {
    /// An object without members.
    pub fn none() -> Detail {
        Detail::Object(Vec::new())
    }

    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Detail> {
        let Detail::Object(members) = self else { return None };
        members.iter().find(|(member, _)| *member == name).map(|(_, value)| value)
    }
}

impl From<bool> for Detail {
    fn from(value: bool) -> Detail {
        Detail::Bool(value)
    }
}

impl From<u64> for Detail {
    fn from(value: u64) -> Detail {
        Detail::Number(value)
    }
}

impl From<u32> for Detail {
    fn from(value: u32) -> Detail {
        Detail::Number(value.into())
    }
}

impl From<String> for Detail {
    fn from(value: String) -> Detail {
        Detail::Text(value)
    }
}

impl From<&str> for Detail {
    fn from(value: &str) -> Detail {
        Detail::Text(value.to_owned())
    }
}
