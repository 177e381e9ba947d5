//! Sets of processors: which are near a device, and on which this process may run.

use std::fmt;
use std::str::FromStr;

/// A set of processors of this machine, by the system's numbers. Written as Linux does, `0-3,8`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpus {
    /// First and last of each run, in order, with gaps between them.
    runs: Vec<(u32, u32)>,
}

impl Cpus {
    /// Those that this process may run on; `None` where the system does not tell.
    pub fn of_this_process() -> Option<Cpus> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        list.parse().ok()
    }

    /// Those whose bits are set, the lowest bit of the first word first.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only NVML has such masks"))]
    pub(crate) fn of_mask(words: &[u64]) -> Cpus {
        let is_set = |cpu: &u32| words[*cpu as usize / 64] >> (cpu % 64) & 1 == 1;
        Cpus::of((0..64 * words.len() as u32).filter(is_set).map(|cpu| (cpu, cpu)).collect())
    }

    fn of(mut found: Vec<(u32, u32)>) -> Cpus {
        found.sort_unstable();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (first, last) in found {
            match runs.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => runs.push((first, last)),
            }
        }
        Cpus { runs }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether some are in both.
    pub fn meets(&self, other: &Cpus) -> bool {
        self.runs.iter().any(|(first, last)| other.runs.iter().any(|(from, to)| first <= to && from <= last))
    }
}

/// A text is no list of processors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no list of processors, such as `0-3,8`")]
pub struct CpusError(String);

impl FromStr for Cpus {
    type Err = CpusError;

    fn from_str(text: &str) -> Result<Self, CpusError> {
        let run = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let parts = text.trim().split(',').filter(|part| !part.is_empty());
        let runs = parts.map(run).collect::<Option<Vec<_>>>();
        runs.map(Cpus::of).ok_or_else(|| CpusError(text.trim().to_owned()))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Cpus {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_read_and_written() {
        for (text, printed) in
            [("0-3,8", "0-3,8"), ("\t5,4 ", "4-5"), ("0,2-4,3-9", "0,2-9"), ("", ""), ("7", "7")]
        {
            assert_eq!(cpus(text).to_string(), printed);
        }
        for wrong in ["x", "3-1", "1-", "-1", "0 1"] {
            let error = wrong.parse::<Cpus>().unwrap_err().to_string();
            assert_eq!(error, format!("`{wrong}` is no list of processors, such as `0-3,8`"));
        }
        assert_eq!(Cpus::of_mask(&[0b1011, 1]).to_string(), "0-1,3,64");
        assert!(Cpus::of_mask(&[0]).is_empty());
    }

    #[test]
    fn sets_meet_where_a_processor_is_in_both() {
        assert!(cpus("0-3,8").meets(&cpus("8-9")) && cpus("2").meets(&cpus("0-3")));
        assert!(!cpus("0-3,8").meets(&cpus("4-7,9")) && !cpus("").meets(&cpus("0")));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!Cpus::of_this_process().unwrap().is_empty());
    }
}
