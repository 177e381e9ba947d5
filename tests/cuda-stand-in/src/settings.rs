//! How the stand-in behaves, read from the environment once.

/// See the crate's documentation for the variables.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) device_count: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) seed: u64,
    pub(crate) delay_us: u64,
    pub(crate) worker_count: usize,
    pub(crate) has_peer_access: bool,
    pub(crate) driver_version: i32,
    pub(crate) aborts_on_misuse: bool,
    pub(crate) near_cpu: Option<u64>,
}

impl Settings {
    pub(crate) fn from_environment() -> Settings {
        Settings {
            device_count: number("STAND_IN_DEVICES", 2) as usize,
            memory_bytes: number("STAND_IN_MEMORY_MIB", 256) << 20,
            seed: number("STAND_IN_SEED", 1),
            delay_us: number("STAND_IN_DELAY_US", 20),
            worker_count: number("STAND_IN_WORKERS", 2).max(1) as usize,
            has_peer_access: number("STAND_IN_PEER", 1) != 0,
            driver_version: number("STAND_IN_DRIVER", 13000) as i32,
            aborts_on_misuse: std::env::var("STAND_IN_MISUSE").map_or(true, |what| what != "report"),
            near_cpu: std::env::var_os("STAND_IN_NEAR_CPU").map(|_| number("STAND_IN_NEAR_CPU", 0)),
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    }
}
