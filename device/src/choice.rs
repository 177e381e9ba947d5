//! Which devices a specification means on this machine: those that it asks for, or, if that is left to the program, the best
//! that can run its kernels.
//!
//! The order is CUDA, wgpu, the host. Whatever is passed over has a reason, which stands in the reason of the choice. Only what
//! is asked for by name can fail: the host is always there.

use crate::backend::Opened;
use crate::error::DeviceError;
use crate::host;
use crate::kernel::Language;
use crate::kernel::declared::{self, Declared};
use crate::spec::{DeviceSpec, HostMode, Kind as Asked};

/// Devices, and why it is these.
pub(crate) struct Choice {
    pub(crate) opened: Opened,
    pub(crate) reason: String,
    /// GPUs are there, and are not taken, for a reason that lies in the program.
    pub(crate) passes_over_gpus: bool,
}

/// A kind of GPUs that may be chosen.
struct Candidate {
    name: &'static str,
    language: Language,
    /// What there is of them; else why there is none.
    look: fn() -> Result<String, String>,
    open: fn(&DeviceSpec) -> Result<Opened, DeviceError>,
}

/// The kinds of GPUs in this build, the best first.
const CANDIDATES: &[Candidate] = &[
    #[cfg(feature = "cuda")]
    Candidate {
        name: "CUDA",
        language: Language::CudaC,
        look: || crate::cuda::look().map(gpu_count).map_err(|error| cuda_reason(&error)),
        open: |spec| open_cuda(spec, &[]),
    },
    #[cfg(feature = "wgpu")]
    Candidate {
        name: "wgpu",
        language: Language::Wgsl,
        look: || crate::wgpu::look().map(gpu_count),
        open: |spec| crate::wgpu::open(spec, &[]),
    },
];

/// Opens the devices of the kind that was asked for, or of the best that there is for the kernels of this program.
/// Without `kernels`, all are written in all languages.
pub(crate) fn choose(
    spec: &DeviceSpec,
    default_mode: HostMode,
    kernels: Option<&[Declared]>,
) -> Result<Choice, DeviceError> {
    let asked = |opened| Choice { opened, reason: "as asked for".to_owned(), passes_over_gpus: false };
    match spec.kind() {
        // What is said of host devices is a reason to take those.
        Asked::Auto if spec.mode().is_some() => {
            let reason = "the host, since the specification says where its kernels run".to_owned();
            Ok(Choice { opened: host::open(spec, default_mode)?, reason, passes_over_gpus: false })
        }
        Asked::Auto => best(CANDIDATES, spec, default_mode, kernels),
        Asked::Host(_) => Ok(asked(host::open(spec, default_mode)?)),
        #[cfg(feature = "cuda")]
        Asked::Cuda(numbers) => Ok(asked(open_cuda(spec, numbers)?)),
        #[cfg(not(feature = "cuda"))]
        Asked::Cuda(_) => Err(crate::spec::SpecError::NotBuilt { backend: "cuda" }.into()),
        #[cfg(feature = "wgpu")]
        Asked::Wgpu(numbers) => Ok(asked(crate::wgpu::open(spec, numbers)?)),
        #[cfg(not(feature = "wgpu"))]
        Asked::Wgpu(_) => Err(crate::spec::SpecError::NotBuilt { backend: "wgpu" }.into()),
    }
}

/// The first of the candidates that is there and can run the kernels of this program; else the host.
fn best(
    candidates: &[Candidate],
    spec: &DeviceSpec,
    default_mode: HostMode,
    kernels: Option<&[Declared]>,
) -> Result<Choice, DeviceError> {
    let (mut refusals, mut passes_over_gpus) = (Vec::new(), false);
    for Candidate { name, language, look, open } in candidates {
        if let Err(reason) = look() {
            refusals.push(format!("no {name}: {reason}"));
            continue;
        }
        match kernels.map(|kernels| declared::fit(kernels, *language)).transpose() {
            Err(reason) => {
                passes_over_gpus = true;
                refusals.push(format!("not {name}, since {reason}"));
            }
            Ok(count) => match open(spec) {
                Ok(opened) => {
                    let reason = reason_for(name, *language, count, &refusals);
                    return Ok(Choice { opened, reason, passes_over_gpus });
                }
                Err(error) => refusals.push(error.to_string()),
            },
        }
    }
    let opened = host::open(spec, default_mode)?;
    let reason = match refusals.is_empty() {
        true => "the host, since this build has nothing else".to_owned(),
        false => format!("the host: {}", refusals.join("; ")),
    };
    Ok(Choice { opened, reason, passes_over_gpus })
}

fn reason_for(name: &str, language: Language, count: Option<usize>, refusals: &[String]) -> String {
    let kernels = match count {
        None => "the kernels have sources".to_owned(),
        Some(1) => "the program's kernel has a source".to_owned(),
        Some(count) => format!("{count} of the program's kernels have sources"),
    };
    let before = refusals.iter().map(|refusal| format!("; {refusal}")).collect::<String>();
    format!("{name}, since there are GPUs and {kernels} in {language}{before}")
}

/// A kind of devices, and what there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// Its name in a specification.
    pub name: &'static str,
    /// What there is; else why there is nothing.
    pub found: Result<String, String>,
}

/// All kinds of devices, with what this machine has of those that are in this build. Touches no device.
pub fn kinds() -> Vec<Kind> {
    let kind = |name: &'static str| {
        let candidate = CANDIDATES.iter().find(|candidate| candidate.name.eq_ignore_ascii_case(name));
        let how = || Err(format!("not in this build: build it with `--features {name}`"));
        Kind { name, found: candidate.map_or_else(how, |candidate| (candidate.look)()) }
    };
    let host = Kind { name: "host", found: Ok("always there".to_owned()) };
    vec![kind("cuda"), kind("wgpu"), host]
}

/// In words.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn gpu_count(count: usize) -> String {
    format!("{count} GPU{}", if count == 1 { "" } else { "s" })
}

#[cfg(feature = "cuda")]
fn open_cuda(spec: &DeviceSpec, numbers: &[usize]) -> Result<Opened, DeviceError> {
    let not_found = |error| DeviceError::NotFound { what: "CUDA", reason: cuda_reason(&error) };
    crate::cuda::open(numbers, spec).map_err(not_found)
}

/// Why there is no CUDA, without saying that there is none.
#[cfg(feature = "cuda")]
fn cuda_reason(error: &crate::cuda::CudaError) -> String {
    let text = error.to_string();
    text.strip_prefix("no CUDA: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::launch::Launch;
    use crate::param::Out;

    const TOUCH: Kernel<(Out<f32>,)> = Kernel::new("touch", |_: &Launch, _: (&mut [f32],)| ());

    fn chosen(candidates: &[Candidate]) -> (String, bool, &'static str) {
        let kernels = [Declared::of(&TOUCH, "a")];
        let choice = best(candidates, &DeviceSpec::default(), HostMode::Inline, Some(&kernels)).unwrap();
        let kind = if choice.opened.devices.len() == 2 { "the candidate" } else { "the host" };
        (choice.reason, choice.passes_over_gpus, kind)
    }

    /// Stands for GPUs by two host devices.
    fn candidate(language: Language) -> Candidate {
        let open = |_: &DeviceSpec| host::open(&"host:2".parse()?, HostMode::Inline);
        Candidate { name: "such GPUs", language, look: || Ok("two".to_owned()), open }
    }

    #[test]
    fn the_first_that_is_there_and_runs_all_kernels_is_taken() {
        let absent = || Candidate { look: || Err("none here".to_owned()), ..candidate(Language::Rust) };
        let refusing = || Candidate {
            open: |_| Err(DeviceError::NotFound { what: "GPU", reason: "it is taken".to_owned() }),
            ..candidate(Language::Rust)
        };
        assert_eq!(
            chosen(&[]),
            ("the host, since this build has nothing else".to_owned(), false, "the host")
        );
        let (reason, passes_over, kind) = chosen(&[candidate(Language::Rust)]);
        assert_eq!(reason, "such GPUs, since there are GPUs and the program's kernel has a source in Rust");
        assert_eq!((passes_over, kind), (false, "the candidate"));
        let (reason, passes_over, kind) = chosen(&[absent(), candidate(Language::Rust)]);
        assert!(reason.ends_with(" in Rust; no such GPUs: none here"), "{reason}");
        assert_eq!((passes_over, kind), (false, "the candidate"));
        let said = |text: &str, passes_over| (format!("the host: {text}"), passes_over, "the host");
        assert_eq!(chosen(&[absent()]), said("no such GPUs: none here", false));
        assert_eq!(chosen(&[refusing()]), said("no GPU: it is taken", false));
        let (reason, passes_over, kind) = chosen(&[absent(), candidate(Language::Wgsl)]);
        let wanted = "the host: no such GPUs: none here; not such GPUs, since no kernel that the program declares has a WGSL source";
        assert_eq!((&*reason, passes_over, kind), (wanted, true, "the host"));
    }
}
