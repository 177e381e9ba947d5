//! What a graph does, as data: its steps, and where each finds its arguments among those of a replay.
//!
//! A replay is one operation. Its arguments are those of the graph, laid out as those of a kernel with the same parameters, and
//! its accesses are the graph's buffers in the order of the parameters. A step names a buffer by its place among these accesses.
//! The arguments of a step are a *template*, into which parts of the replay's are copied; so a backend that runs steps one by
//! one needs to know nothing of parameters.

#[cfg(feature = "cuda")]
use std::any::Any;
use std::sync::Mutex;

use crate::arguments::{Arguments, Slots};
use crate::kernel::Code;
use crate::launch::Launch;
use crate::operation::AccessMode;

/// A graph without its types.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<Step>,
    /// Lists the parameters.
    pub(crate) describe: fn(&mut Slots),
    /// For the arguments of the step that is being done: kept for its memory, and taken out meanwhile.
    pub(crate) spare: Mutex<Arguments>,
    /// What the backend has made of it for later replays.
    #[cfg(feature = "cuda")]
    pub(crate) made: Mutex<Option<Box<dyn Any + Send>>>,
}

/// One thing that a graph does. Buffers are places among the accesses of the replay.
#[allow(clippy::large_enum_variant, reason = "most steps are launches")]
pub(crate) enum Step {
    Launch(LaunchStep),
    /// Copies a buffer to another one of the same length.
    Copy {
        from: usize,
        to: usize,
    },
    /// Fills a buffer with zeros.
    Zero(usize),
}

/// A kernel's launch, as a step.
pub(crate) struct LaunchStep {
    pub(crate) code: Code,
    pub(crate) launch: Launch,
    pub(crate) arguments: StepArguments,
}

/// The arguments of a step.
#[derive(Default)]
pub struct StepArguments {
    template: Arguments,
    patches: Vec<Patch>,
    /// The buffers that are there, in the order of the kernel's parameters, and what the kernel does to each.
    pub(crate) uses: Vec<(usize, AccessMode)>,
}

/// A part of the replay's arguments that goes into a step's.
struct Patch {
    from: usize,
    to: usize,
    bytes: usize,
}

impl StepArguments {
    /// The arguments themselves, for what does not depend on the replay.
    pub(crate) fn template(&mut self) -> &mut Arguments {
        &mut self.template
    }

    /// Adds a value with these bytes and this alignment that stands at `from` in the replay's arguments.
    pub(crate) fn push_from(&mut self, from: usize, bytes: usize, align: usize) {
        let to = self.template.push_zeros(bytes, align);
        self.patches.push(Patch { from, to, bytes });
    }

    /// Makes `filled` the arguments of this step in a replay with `arguments`.
    pub(crate) fn fill(&self, arguments: &Arguments, filled: &mut Arguments) {
        filled.copy_from(&self.template);
        for Patch { from, to, bytes } in &self.patches {
            filled.bytes_mut()[*to..to + bytes].copy_from_slice(&arguments.bytes()[*from..from + bytes]);
        }
    }
}

impl Plan {
    pub(super) fn new(name: &'static str, steps: Vec<Step>, describe: fn(&mut Slots)) -> Self {
        Plan {
            name,
            steps,
            describe,
            spare: Mutex::default(),
            #[cfg(feature = "cuda")]
            made: Mutex::default(),
        }
    }

    /// The kernels, each once, in the order of their first launch.
    #[cfg(feature = "cuda")]
    pub(crate) fn kernels(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for step in &self.steps {
            if let Step::Launch(LaunchStep { code, .. }) = step
                && !names.contains(&code.name)
            {
                names.push(code.name);
            }
        }
        names
    }
}
