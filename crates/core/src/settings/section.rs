//! The macro that declares a section of settings once: its type, its reader and its documentation.

use super::layers::{Layers, Origin};
use super::value::Value;
use super::{SettingError, environment_name};

/// One setting, as documentation shows it.
#[derive(Clone, Debug)]
pub struct Field {
    /// `section.name` in the file and in flags.
    pub path: &'static str,
    /// The variables of the systems before; an earlier one goes before a later one.
    pub older_names: &'static [&'static str],
    /// The default; none where the setting may be absent.
    pub default: Option<&'static str>,
    /// The least and the greatest value.
    pub range: Option<(&'static str, &'static str)>,
    /// What is allowed.
    pub allowed: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

// === impl Field ===

impl Field {
    /// Returns the name of its variable in the environment.
    #[must_use]
    pub fn environment_name(&self) -> String {
        environment_name(self.path)
    }

    /// Says what is allowed, range included.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.range {
            Some((low, high)) => format!("{} from {low} to {high}", self.allowed),
            None => self.allowed.to_owned(),
        }
    }

    /// Reads the setting; notes an error and returns `None` where the text is not allowed.
    pub(super) fn read<T: Value + PartialOrd>(&self, layers: &Layers, errors: &mut Vec<SettingError>) -> Option<T> {
        self.read_with(layers, errors, |value| match self.range.map(|(low, high)| (T::parse(low), T::parse(high))) {
            Some((low, high)) => low.is_none_or(|low| *value >= low) && high.is_none_or(|high| *value <= high),
            None => true,
        })
    }

    /// Reads a setting that has no order and so no range.
    pub(super) fn read_plain<T: Value>(&self, layers: &Layers, errors: &mut Vec<SettingError>) -> Option<T> {
        self.read_with(layers, errors, |_| true)
    }

    fn read_with<T: Value>(
        &self,
        layers: &Layers,
        errors: &mut Vec<SettingError>,
        in_range: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let (text, origin) = match layers.find(self.path, self.older_names) {
            Some(found) => found,
            None => match self.default {
                Some(default) => (default, Origin::Default),
                None => return T::absent(),
            },
        };
        let value = T::parse(text.trim()).filter(in_range);
        if value.is_none() {
            errors.push(SettingError {
                field: self.path.to_owned(),
                origin,
                value: T::mask(text),
                allowed: T::why(text.trim()).unwrap_or_else(|| self.allowed()),
            });
        }
        value
    }
}

/// Declares a section: `field "name": Type = "default" | none[, env "OLDER" [or "ANOTHER"]…][, from "low" to "high"];`
macro_rules! settings {
    ($(#[doc = $section_doc:literal])* pub struct $section:ident in $path:literal {
        $($(#[doc = $doc:literal])* $field:ident $name:literal: $type:ty = $default:tt
            $(, env $env:literal $(or $another:literal)*)? $(, from $low:literal to $high:literal)?;)*
    }) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $section {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $section {
            const FIELDS: &[$crate::settings::Field] = &[$($crate::settings::Field {
                path: concat!($path, ".", $name),
                older_names: &[$($env $(, $another)*)?],
                default: $crate::settings::section::default!($default),
                range: $crate::settings::section::optional!($(($low, $high))?),
                allowed: <$type as $crate::settings::Value>::ALLOWED,
                doc: concat!($($doc),*),
            },)*];

            /// Lists the settings of this section.
            #[must_use]
            pub fn fields() -> Vec<$crate::settings::Field> {
                Self::FIELDS.to_vec()
            }

            fn load(
                layers: &$crate::settings::Layers,
                errors: &mut Vec<$crate::settings::SettingError>,
            ) -> Option<Self> {
                let mut fields = Self::FIELDS.iter();
                // Every field is read before the first missing one ends it, so that all errors are told at once.
                $(let $field = fields.next().and_then(|field| {
                    $crate::settings::section::read!(field, layers, errors, $($low)?)
                });)*
                Some(Self { $($field: $field?,)* })
            }
        }
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

macro_rules! default {
    (none) => {
        None
    };
    ($value:literal) => {
        Some($value)
    };
}

macro_rules! read {
    ($field:ident, $layers:ident, $errors:ident,) => {
        $field.read_plain($layers, $errors)
    };
    ($field:ident, $layers:ident, $errors:ident, $low:literal) => {
        $field.read($layers, $errors)
    };
}

pub(super) use {default, optional, read, settings};
