//! Graphs: several launches and copies that are recorded once and replayed as one operation.
//!
//! A [`Graph`] is to a list of launches what a [`Kernel`] is to one: it has typed parameters, and [`Graph::replay`] takes the
//! arguments, under the same borrows and with the same snapshot rule, as a launch does. So nobody can use a buffer between being
//! recorded and being replayed, and nothing of a graph outlives a call but its [`Plan`]. A replay is one operation: it comes after
//! all that its buffers ask for, and what uses one of them later comes after all of it.
//!
//! What a replay may find already made (an executable graph of CUDA's with the same buffers and scalars) is the backend's, and
//! no promise: a replay with other arguments is as good, and may cost more.

mod formal;
mod plan;

use std::marker::PhantomData;
use std::sync::Arc;

pub use formal::{BufferParam, Formal, FormalParam, FormalParams, StepArg, StepArgs, WrittenParam};
pub(crate) use plan::{LaunchStep, Plan, Step};

use crate::account::Account;
use crate::args::Args;
use crate::arguments::Slots;
use crate::branch::Branch;
use crate::completion::Completion;
use crate::error::DeviceError;
use crate::kernel::Kernel;
use crate::launch::{Grid, Launch};
use crate::operation::{AccessMode, Command};
use crate::param::Params;
use formal::{Brand, Formals};
use plan::StepArguments;

/// Launches and copies of one account that are replayed as one operation, with the parameters `A`, as a kernel has them. Made by
/// [`Account::record`]. A cheap clone; all clones are the same graph.
pub struct Graph<A> {
    account: Account,
    /// The ordinal of the device that its kernels are known to run on.
    recorded_on: usize,
    plan: Arc<Plan>,
    params: PhantomData<fn() -> A>,
}

/// What a graph does, while it is recorded. See [`Account::record`].
pub struct Recording<'g> {
    /// Where its kernels are to run.
    branch: Arc<Branch>,
    name: &'static str,
    steps: Vec<Step>,
    /// What the graph declares to do to each buffer, and whether it has written it yet.
    buffers: Vec<(AccessMode, bool)>,
    brand: Brand<'g>,
}

impl Account {
    /// Records a graph with the parameters `A`: `body` says what each replay does, and does nothing by itself. It is called once,
    /// with what stands for the parameters ([`Formal`]).
    ///
    /// Its replays go to the account's stream, on the device that the account is bound to by then. It may stay longer than any buffer.
    /// What it is good for: many small kernels, whose launches take longer than they do. On CUDA a replay is one call of the driver's; elsewhere it
    /// is one operation, with one completion, instead of many.
    ///
    /// ```
    /// # use chare_device::*;
    /// # const AXPY: Kernel<(f64, In<f64>, InOut<f64>)> = Kernel::new("axpy", axpy);
    /// # fn axpy(_: &Launch, (a, x, y): (f64, &[f64], &mut [f64])) { y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x) }
    /// # let devices = Devices::open(&"host".parse()?, HostMode::Inline)?;
    /// # let account = devices.get(0).account("me");
    /// let graph = account.record::<(f64, In<f64>, InOut<f64>)>("twice", |recording, (a, x, mut y)| {
    ///     recording.launch(&AXPY, 8, (&a, &x, &mut y))?;
    ///     recording.launch(&AXPY, 8, (0.5, &x, &mut y))
    /// })?;
    /// let (x, mut y) = (account.upload(vec![1.0; 8])?, account.alloc::<f64>(8)?);
    /// graph.replay((2.0, &x, &mut y))?;
    /// graph.replay((3.0, &x, &mut y))?;
    /// assert_eq!(account.download(&y)?.wait()?, [6.0; 8]);
    /// # Ok::<(), DeviceError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What `body` returns; [`DeviceError::Graph`] if a buffer that the graph declares to overwrite ([`Out`](crate::Out)) is never written, or read
    /// first; [`DeviceError::NoSource`] and [`DeviceError::Kernel`] for a kernel that the device cannot run.
    pub fn record<A: FormalParams>(
        &self,
        name: &'static str,
        body: impl for<'g> FnOnce(&mut Recording<'g>, A::Formals<'g>) -> Result<(), DeviceError>,
    ) -> Result<Graph<A>, DeviceError> {
        let mut slots = Slots::default();
        A::describe(&mut slots);
        let declared: Vec<AccessMode> = slots.list.iter().filter_map(|slot| slot.buffer).collect();
        let is_zeroed = |index: &usize| declared[*index] == AccessMode::Zeroed;
        let mut recording = Recording {
            branch: self.branch().clone(),
            name,
            steps: (0..declared.len()).filter(is_zeroed).map(Step::Zero).collect(),
            buffers: declared.iter().map(|&mode| (mode, mode == AccessMode::Zeroed)).collect(),
            brand: PhantomData,
        };
        body(&mut recording, A::formals(&mut Formals::of(slots)))?;
        let unwritten =
            |(mode, is_written): &(AccessMode, bool)| *mode == AccessMode::Overwrite && !is_written;
        if let Some(index) = recording.buffers.iter().position(unwritten) {
            return Err(recording.wrong(
                index,
                "declares to overwrite",
                "and never writes it; declare it `In`",
            ));
        }
        let recorded_on = recording.branch.device.ordinal;
        let plan = Arc::new(Plan::new(name, recording.steps, A::describe));
        Ok(Graph { account: self.clone(), recorded_on, plan, params: PhantomData })
    }
}

impl<'g> Recording<'g> {
    /// Adds a launch; see [`Account::launch`]. What it is given is a [`Formal`] or a value that is the same in every replay.
    ///
    /// # Errors
    ///
    /// As [`Account::record`].
    pub fn launch<A, X>(
        &mut self,
        kernel: &Kernel<A>,
        grid: impl Into<Grid>,
        args: X,
    ) -> Result<(), DeviceError>
    where
        A: Params,
        X: StepArgs<'g, A>,
    {
        self.branch.check_source(kernel)?;
        let mut arguments = StepArguments::default();
        args.put(&mut arguments);
        for &(index, mode) in &arguments.uses {
            self.note(index, mode)?;
        }
        let launch = Launch::new(grid.into());
        self.steps.push(Step::Launch(LaunchStep { code: kernel.code(), launch, arguments }));
        Ok(())
    }

    /// Adds a copy of a buffer over another one, which has as many elements; that is looked at by each replay.
    ///
    /// # Errors
    ///
    /// As [`Account::record`].
    pub fn copy<P, Q>(&mut self, from: &Formal<'g, P>, to: &mut Formal<'g, Q>) -> Result<(), DeviceError>
    where
        P: BufferParam,
        Q: WrittenParam<DevicePod = P::DevicePod>,
    {
        let (from, to) = (from.buffer, to.buffer);
        self.note(from, AccessMode::Read)?;
        self.note(to, AccessMode::Overwrite)?;
        self.steps.push(Step::Copy { from, to });
        Ok(())
    }

    /// Adds that a buffer is filled with zeros.
    ///
    /// # Errors
    ///
    /// As [`Account::record`].
    pub fn zero<P: WrittenParam>(&mut self, buffer: &mut Formal<'g, P>) -> Result<(), DeviceError> {
        self.note(buffer.buffer, AccessMode::Overwrite)?;
        self.steps.push(Step::Zero(buffer.buffer));
        Ok(())
    }

    /// Notes what a step does to a buffer.
    fn note(&mut self, index: usize, mode: AccessMode) -> Result<(), DeviceError> {
        let (declared, is_written) = &mut self.buffers[index];
        if *declared == AccessMode::Overwrite && !*is_written && mode.reads() {
            return Err(self.wrong(index, "declares to overwrite", "and reads it first; declare it `InOut`"));
        }
        *is_written |= mode != AccessMode::Read;
        Ok(())
    }

    fn wrong(&self, index: usize, does: &str, but: &str) -> DeviceError {
        let problem = format!("{does} its buffer {}, {but}", index + 1);
        DeviceError::Graph { graph: self.name, problem }
    }
}

impl<A: FormalParams> Graph<A> {
    /// What it was called when it was recorded.
    pub fn name(&self) -> &'static str {
        self.plan.name
    }

    /// Enqueues all that was recorded, on these buffers and with these scalars, as one operation of the account that recorded it. `args`
    /// is what a launch of a kernel with the parameters `A` takes, with the same rules: a buffer that the graph may write, and that is shared,
    /// gets other memory first, also if no step writes it.
    ///
    /// If a kernel fails, the steps after it are not run (or may be, on a GPU), the fault names the kernel as far as it can be told, and all
    /// that the graph may write is spoiled.
    ///
    /// # Errors
    ///
    /// As [`Account::launch`], and [`DeviceError::Shape`] for a copy between buffers of different lengths.
    pub fn replay<X: Args<A>>(&self, args: X) -> Result<Completion<()>, DeviceError> {
        let branch = self.account.checked()?;
        if branch.device.ordinal != self.recorded_on {
            let mut launches = self.plan.steps.iter().filter_map(|step| match step {
                Step::Launch(launch) => Some(&launch.code),
                _ => None,
            });
            launches.try_for_each(|code| branch.prepare(code))?;
        }
        let mut bound = args.bind();
        X::check(&mut bound, branch)?;
        for step in &self.plan.steps {
            let Step::Copy { from, to } = *step else { continue };
            let (mut index, mut lens) = (0, [0; 2]);
            X::visit(&bound, &mut |used| {
                for (len, _) in lens.iter_mut().zip([from, to]).filter(|(_, place)| *place == index) {
                    *len = used.memory.len_elems();
                }
                index += 1;
            });
            if lens[0] != lens[1] {
                return Err(DeviceError::Shape { len: lens[0], wanted: lens[1] });
            }
        }
        let raw = X::commit(&mut bound);
        branch.enqueue::<A, X>(self.plan.name, Command::Graph(self.plan.clone()), &bound, raw)
    }
}

impl<A> Clone for Graph<A> {
    fn clone(&self) -> Self {
        Graph { account: self.account.clone(), plan: self.plan.clone(), ..*self }
    }
}

impl<A> std::fmt::Debug for Graph<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph")
            .field("name", &self.plan.name)
            .field("step_count", &self.plan.steps.len())
            .finish_non_exhaustive()
    }
}
