//! Which share of the rows is not as it should be.

use std::str::FromStr;

/// Which share of the rows is not as it should be; each from 0 to 1, and at most 1 together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulationMix {
    /// Creators who were there before, spelt a little differently.
    pub duplicates: f64,
    /// Rows with an address, count or user name that isn't one.
    pub junk: f64,
    /// Rows without a source, user name or contact.
    pub missing: f64,
    /// Creators with a name or bio that tries to break something; they are accepted.
    pub hostile: f64,
}

impl Default for SimulationMix {
    /// What a purchased list is like.
    fn default() -> Self {
        Self { duplicates: 0.05, junk: 0.02, missing: 0.02, hostile: 0.01 }
    }
}

impl SimulationMix {
    /// Nothing but well-formed creators.
    pub const CLEAN: Self = Self { duplicates: 0.0, junk: 0.0, missing: 0.0, hostile: 0.0 };
}

/// The shares are out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("each share of a mix must be from 0 to 1, and all together at most 1")]
pub struct InvalidMix;

impl SimulationMix {
    /// Checks the ranges.
    pub fn check(self) -> Result<Self, InvalidMix> {
        let shares = [self.duplicates, self.junk, self.missing, self.hostile];
        let valid = shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().sum::<f64>() <= 1.0 + 1e-9;
        if valid { Ok(self) } else { Err(InvalidMix) }
    }
}

/// `duplicates=0.1,junk=0.05`; what isn't named is 0.
impl FromStr for SimulationMix {
    type Err = InvalidMix;

    fn from_str(text: &str) -> Result<Self, InvalidMix> {
        let mut mix = Self::CLEAN;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, share) = part.split_once('=').ok_or(InvalidMix)?;
            let share = share.trim().parse().map_err(|_| InvalidMix)?;
            match name.trim() {
                "duplicates" => mix.duplicates = share,
                "junk" => mix.junk = share,
                "missing" => mix.missing = share,
                "hostile" => mix.hostile = share,
                _ => return Err(InvalidMix),
            }
        }
        mix.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_from_text() {
        assert_eq!(
            "junk=0.5, hostile=0.25".parse(),
            Ok(SimulationMix { junk: 0.5, hostile: 0.25, ..SimulationMix::CLEAN })
        );
        for text in ["junk=2", "junk=0.6,missing=0.6", "spam=0.1", "junk"] {
            assert_eq!(text.parse::<SimulationMix>(), Err(InvalidMix), "{text}");
        }
    }
}
