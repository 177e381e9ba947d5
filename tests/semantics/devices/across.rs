//! Device memory in messages. Run with `CHARE_TEST_PROCESSES=2` or 4, most of these go to another process, where they come as host memory
//! and are copied to a device at their first use; in one process the same programs show the same.

use std::time::Duration;

use chare::device::{Account, DeviceSlice, DeviceVec};
use chare::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ADD, COPY, FILL, Gate, Kernel, Launch, Out, PANIC};

/// What a share holds, as the device of this account sees it.
async fn seen(dev: &Account, share: &DeviceSlice<f64>) -> Result<Vec<f64>> {
    let mut copy = dev.alloc(share.shape())?;
    dev.launch(&COPY, share.len() as u32, (share, &mut copy))?;
    Ok(dev.download(&copy)?.await?)
}

/// Keeps what it is made with.
struct Keeper {
    share: DeviceSlice<f64>,
}

#[chare(index = usize)]
impl Keeper {
    fn new(share: DeviceSlice<f64>) -> Self {
        Keeper { share }
    }

    #[entry]
    async fn see(this: This<Self>) -> Result<Vec<f64>> {
        let share = this.with(|keeper| keeper.share.clone());
        seen(&this.device(), &share).await
    }
}

/// More than one share, and other things in between.
#[derive(Serialize, Deserialize)]
struct Faces {
    step: u32,
    faces: Vec<Option<DeviceSlice<f64>>>,
    name: String,
}

/// One on each PE.
struct Holder {
    buffer: DeviceVec<f64>,
    log: Vec<String>,
    promise: Option<Promise<DeviceSlice<f64>>>,
}

#[chare]
impl Holder {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Holder {
            buffer: cx.device().upload(values_of(cx.my_pe().index()))?,
            log: Vec::new(),
            promise: None,
        })
    }

    #[entry]
    fn share(&self) -> DeviceSlice<f64> {
        self.buffer.share()
    }

    #[entry]
    async fn see(this: This<Self>, share: DeviceSlice<f64>) -> Result<Vec<f64>> {
        seen(&this.device(), &share).await
    }

    /// Reads it by the host, and in all other ways.
    #[entry]
    async fn read(this: This<Self>, share: DeviceSlice<f64>) -> Result<(Vec<f64>, Vec<usize>)> {
        let dev = this.device();
        let host = dev.read(&share, dev.host_vec(share.len())?)?.await?;
        let values = dev.download(&share)?.await?;
        assert_eq!(*host, values);
        let (copy, mut place) = (dev.copy(&share)?, dev.alloc(share.len())?);
        dev.copy_into(&share, &mut place)?;
        let import = dev.import(&share)?;
        assert_eq!(copy.shape(), import.shape());
        for same in [dev.download(&copy)?, dev.download(&place)?, dev.download(&import)?] {
            assert_eq!(same.await?, values);
        }
        Ok((values, share.shape().extents().to_vec()))
    }

    /// Returns the first element of each.
    #[entry]
    async fn see_faces(this: This<Self>, faces: Faces) -> Result<Vec<f64>> {
        let mut firsts = vec![f64::from(faces.step), faces.name.len() as f64];
        for face in faces.faces.iter().flatten() {
            firsts.push(seen(&this.device(), face).await?[0]);
        }
        Ok(firsts)
    }

    /// Passes it on, as it came.
    #[entry]
    async fn relay(this: This<Self>, share: DeviceSlice<f64>, to: Element<Holder>) -> Result<Vec<f64>> {
        this.with(|holder| holder.log.push("relayed".to_owned()));
        Ok(to.see(share).await?)
    }

    #[entry]
    fn share_grid(&self, cx: &Cx<Self>) -> Result<DeviceSlice<f64>> {
        let mut grid = cx.device().alloc([2, 3, 4])?;
        cx.device().launch(&FILL, 24, (&mut grid, 5.0))?;
        Ok(grid.share())
    }

    /// Takes a buffer for its own, changes it, and gives away the one that it had.
    #[entry]
    fn adopt(&mut self, cx: &Cx<Self>, mut buffer: DeviceVec<f64>) -> Result<DeviceVec<f64>> {
        cx.device().launch(&ADD, buffer.len() as u32, (&mut buffer, 0.5))?;
        Ok(std::mem::replace(&mut self.buffer, buffer))
    }

    /// Lets another one adopt its buffer, and returns what that one had, and what the buffer holds there.
    #[entry]
    async fn exchange(&mut self, cx: &Cx<Self>, with: Element<Holder>) -> Result<(Vec<f64>, Vec<f64>)> {
        let dev = cx.device();
        let own = std::mem::replace(&mut self.buffer, dev.alloc(1)?);
        let mut other = with.adopt(own).await?;
        dev.launch(&ADD, 1000, (&mut other, 0.25))?.await?;
        assert!(dev.used_bytes() >= 8000, "it is charged to who writes it");
        let there = with.share().await?;
        Ok((dev.download(&other)?.await?, seen(&dev, &there).await?))
    }

    #[entry]
    fn fulfil(&self, promise: Promise<DeviceSlice<f64>>) {
        promise.send(self.buffer.share()).expect("it is fulfilled once");
    }

    /// Keeps an end of a promise.
    #[entry]
    fn keep(&mut self, promise: Promise<DeviceSlice<f64>>) {
        self.promise = Some(promise);
    }

    /// Keeps an end, and gives another one to somebody.
    #[entry]
    async fn keep_both(
        this: This<Self>,
        promise: Promise<DeviceSlice<f64>>,
        with: Element<Holder>,
    ) -> Result<()> {
        with.keep(promise.clone()).await?;
        this.with(|holder| holder.promise = Some(promise));
        Ok(())
    }

    /// Fulfils the promise with what a kernel has not written yet, drops the end, and then has another one dropped.
    #[entry]
    fn fulfil_late(&mut self, cx: &Cx<Self>, other: Element<Holder>, gate: u32) -> Result<()> {
        let mut late = cx.device().alloc(10)?;
        cx.device().launch(&FILL_LATE, 10, (&mut late, gate))?;
        let promise = self.promise.take().expect("it keeps one");
        promise.send(late.share()).expect("it is fulfilled once");
        drop(promise);
        other.drop_promise().send();
        Ok(())
    }

    /// Sends a share that a kernel has not written yet to whoever waits, gives the end away, and then has another one dropped.
    #[entry]
    fn give_away_late(
        &mut self,
        cx: &Cx<Self>,
        [waiting, to, other]: [Element<Holder>; 3],
        gate: u32,
    ) -> Result<()> {
        let mut late = cx.device().alloc(10)?;
        cx.device().launch(&FILL_LATE, 10, (&mut late, gate))?;
        waiting.log_share(late.share()).send();
        to.keep(self.promise.take().expect("it keeps one")).send();
        other.drop_promise().send();
        Ok(())
    }

    #[entry]
    fn drop_promise(&mut self) {
        self.promise = None;
        self.log.push("dropped".to_owned());
    }

    /// Fulfils the promise, if it has come.
    #[entry]
    fn fulfil_kept(&mut self) -> bool {
        let promise = self.promise.take();
        let fulfilled =
            promise.map(|promise| promise.send(self.buffer.share()).expect("it is fulfilled once"));
        fulfilled.is_some()
    }

    #[entry]
    fn log(&mut self, what: String) {
        self.log.push(what);
    }

    /// Notes that a share has come.
    #[entry]
    fn log_share(&mut self, share: DeviceSlice<f64>) {
        self.log.push(format!("{} elements", share.len()));
    }

    #[entry]
    fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Changes the buffer as soon as a share of it has been sent.
    #[entry]
    async fn send_and_overwrite(&mut self, cx: &Cx<Self>, to: Element<Holder>) -> Result<Vec<f64>> {
        let dev = cx.device();
        dev.launch(&FILL, 1000, (&mut self.buffer, 1.0))?;
        let call = to.see(self.buffer.share()).future();
        dev.launch(&FILL, 1000, (&mut self.buffer, 2.0))?;
        dev.launch(&ADD, 1000, (&mut self.buffer, 1.0))?;
        Ok(call.await?)
    }

    /// Sends what a kernel has not written yet, and then something else.
    #[entry]
    fn send_in_order(&mut self, cx: &Cx<Self>, to: Element<Holder>, gate: u32) -> Result<()> {
        let mut late = cx.device().alloc(10)?;
        cx.device().launch(&FILL_LATE, 10, (&mut late, gate))?;
        to.log("before".to_owned()).send();
        to.log_share(late.share()).send();
        to.log("between".to_owned()).send();
        to.log_share(self.buffer.share()).send();
        to.log("behind".to_owned()).send();
        GATES[gate as usize].set(true);
        Ok(())
    }

    #[entry]
    async fn send_spoiled(&mut self, cx: &Cx<Self>, to: Element<Holder>) -> Result<String> {
        let error = to.see(spoiled(&cx.device()).await?.share()).await.expect_err("it is spoiled");
        // What comes later is not.
        assert_eq!(to.see(self.buffer.share()).await?.len(), 1000);
        Ok(error.to_string())
    }

    #[entry]
    async fn share_spoiled(&mut self, cx: &Cx<Self>) -> Result<DeviceSlice<f64>> {
        Ok(spoiled(&cx.device()).await?.share())
    }

    /// A share, which is spoiled on one PE.
    #[entry]
    async fn share_unless(&mut self, cx: &Cx<Self>, pe: usize) -> Result<DeviceSlice<f64>> {
        if cx.my_pe().index() == pe { self.share_spoiled(cx).await } else { Ok(self.buffer.share()) }
    }

    #[entry]
    async fn ask_for_spoiled(&mut self, cx: &Cx<Self>, of: Element<Holder>) -> Result<String> {
        let error = match of.share_spoiled().await {
            Ok(share) => seen(&cx.device(), &share).await.expect_err("it is spoiled").to_string(),
            Err(error) => error.to_string(),
        };
        Ok(error)
    }

    #[entry]
    async fn promise_spoiled(&mut self, cx: &Cx<Self>, promise: Promise<DeviceSlice<f64>>) -> Result<()> {
        promise.send(spoiled(&cx.device()).await?.share()).expect("it is fulfilled once");
        Ok(())
    }

    /// Passes shares of buffers of these lengths on by channels, and sums up what has come.
    #[entry]
    async fn ring(
        &mut self,
        cx: &Cx<Self>,
        (before, next): (Element<Holder>, Element<Holder>),
        lengths: Vec<usize>,
    ) -> Result<f64> {
        let (dev, own) = (cx.device(), cx.my_pe().index() as f64 + 1.0);
        let next: Channel<DeviceSlice<f64>> = cx.channel(&next, 1);
        let before: Channel<DeviceSlice<f64>> = cx.channel(&before, 1);
        let mut sum = 0.0;
        for len in lengths {
            let mut buffer = dev.alloc(len)?;
            dev.launch(&FILL, len as u32, (&mut buffer, own))?;
            next.send(buffer.share())?;
            dev.launch(&FILL, len as u32, (&mut buffer, 1e9))?;
            let came = before.recv().await?;
            assert_eq!(came.len(), len);
            sum += seen(&dev, &came).await?.iter().sum::<f64>();
        }
        Ok(sum)
    }
}

/// Moves with its buffers.
#[derive(Serialize, Deserialize)]
struct Field {
    now: DeviceVec<f64>,
    next: DeviceVec<f64>,
    given: Option<DeviceSlice<f64>>,
    steps: u32,
}

#[chare(index = usize)]
impl Field {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        let dev = cx.device();
        let mut next = dev.alloc([10, 100])?;
        dev.launch(&FILL, 1000, (&mut next, -1.0))?;
        Ok(Field { now: dev.upload(values_of(cx.index()))?, next, given: None, steps: 0 })
    }

    #[entry]
    fn give(&mut self, share: DeviceSlice<f64>) {
        self.given = Some(share);
    }

    #[entry]
    fn share(&self) -> DeviceSlice<f64> {
        self.now.share()
    }

    /// Leaves kernels behind that are under way when the next message comes.
    #[entry]
    fn step(&mut self, cx: &Cx<Self>) -> Result<()> {
        let dev = cx.device();
        dev.launch(&COPY, 1000, (&self.now, &mut self.next))?;
        dev.launch(&ADD, 1000, (&mut self.next, 1.0))?;
        std::mem::swap(&mut self.now, &mut self.next);
        self.steps += 1;
        Ok(())
    }

    #[entry]
    async fn look(&mut self, cx: &Cx<Self>) -> Result<(u32, Vec<f64>, Vec<f64>)> {
        let given = match &self.given {
            Some(share) => seen(&cx.device(), share).await?,
            None => Vec::new(),
        };
        Ok((self.steps, cx.device().download(&self.now)?.await?, given))
    }

    /// Lets a kernel fail that writes what the chare takes along.
    #[entry]
    async fn spoil(&mut self, cx: &Cx<Self>) {
        let dev = cx.device();
        let spoiled = dev.launch(&PANIC, 1000, (&mut self.next,)).expect("it is launched");
        spoiled.await.expect_err("it panics");
    }

    #[entry]
    async fn read_spoiled(&mut self, cx: &Cx<Self>) -> String {
        let dev = cx.device();
        let read = seen(&dev, &self.next.share()).await.expect_err("it is spoiled").to_string();
        let host =
            dev.download(&self.next).expect("it is enqueued").await.expect_err("it is spoiled").to_string();
        assert!(host.contains("no more 1000"), "{host}");
        dev.launch(&FILL, 1000, (&mut self.next, 4.0))
            .expect("it is launched")
            .await
            .expect("it is whole again");
        read
    }
}

/// A buffer that a kernel has failed to write.
async fn spoiled(dev: &Account) -> Result<DeviceVec<f64>> {
    let mut spoiled = dev.alloc(4)?;
    dev.launch(&PANIC, 4, (&mut spoiled,))?.await.expect_err("it panics");
    Ok(spoiled)
}

/// What the late kernels of one run wait for.
static GATES: [Gate; 32] = [const { Gate::new() }; 32];
const FILL_LATE: Kernel<(Out<f64>, u32)> = Kernel::new("fill_late", fill_late);

fn fill_late(_: &Launch, (out, gate): (&mut [f64], u32)) {
    GATES[gate as usize].pass();
    out.fill(7.0);
}

fn values_of(pe: usize) -> Vec<f64> {
    (0..1000).map(|i| (1000 * pe + i) as f64).collect()
}

async fn shares_come_as_they_were_sent(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let last = rt.num_pes() - 1;
    for from in [0, last] {
        let share = holders.on(from).share().await?;
        assert_eq!(share.len(), 1000);
        for to in 0..rt.num_pes() {
            assert_eq!(holders.on(to).see(share.clone()).await?, values_of(from), "{from} to {to}");
            assert_eq!(holders.on(to).read(share.clone()).await?, (values_of(from), vec![1000]));
            assert_eq!(holders.on(to).relay(share.clone(), holders.on(last - from)).await?, values_of(from));
        }
        let all = holders.see(share).gather().await?;
        assert_eq!(all, vec![values_of(from); rt.num_pes()]);
    }
    let first = holders.on(0).share().await?;
    let faces = vec![Some(first.clone()), None, Some(holders.on(last).share().await?), Some(first)];
    let firsts = holders.on(last).see_faces(Faces { step: 3, faces, name: "faces".to_owned() }).await?;
    assert_eq!(firsts, [3.0, 5.0, 0.0, 1000.0 * last as f64, 0.0]);
    let (promise, value) = rt.promise::<DeviceSlice<f64>>();
    holders.on(last).fulfil(promise).send();
    assert_eq!(holders.on(0).see(value.await?).await?, values_of(last));
    let grid = holders.on(last).share_grid().await?;
    assert_eq!(holders.on(0).read(grid).await?, (vec![5.0; 24], vec![2, 3, 4]));
    Ok(())
}

async fn buffers_get_another_owner(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let last = rt.num_pes() - 1;
    if last == 0 {
        return Ok(());
    }
    let plus = |pe: usize, more: f64| values_of(pe).iter().map(|value| value + more).collect::<Vec<_>>();
    let (had, there) = holders.on(0).exchange(holders.on(last)).await?;
    assert_eq!((had, there), (plus(last, 0.25), plus(0, 0.5)));
    Ok(())
}

async fn what_is_written_later_does_not_show(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    for to in 1..rt.num_pes() {
        for _ in 0..10 {
            assert_eq!(holders.on(0).send_and_overwrite(holders.on(to)).await?, vec![1.0; 1000]);
        }
    }
    Ok(())
}

async fn channels_carry_shares_of_any_length(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let (pes, lengths) = (rt.num_pes(), vec![1, 0, 31, 33, 1 << 20, 0, 5000, 1]);
    let total: usize = lengths.iter().sum();
    let ring = (0..pes).map(|pe| {
        let neighbours = (holders.on((pe + pes - 1) % pes), holders.on((pe + 1) % pes));
        holders.on(pe).ring(neighbours, lengths.clone()).future()
    });
    for (pe, sum) in ring.collect::<Vec<_>>().into_iter().enumerate() {
        let before = ((pe + pes - 1) % pes) as f64 + 1.0;
        assert_eq!(sum.await?, before * total as f64, "PE {pe}");
    }
    Ok(())
}

async fn chares_move_with_their_buffers(rt: Runtime) -> Result<()> {
    let (fields, last) = (rt.array::<Field>(4).create(()).await?, rt.num_pes() - 1);
    let share = fields.at(0).share().await?;
    let one = fields.at(1);
    one.give(share).await?;
    for round in 0..6 {
        one.step().send();
        one.migrate(if round % 2 == 0 { last } else { 0 }).await?;
        one.step().send();
    }
    // Plain calls may be overtaken on their way to a chare that moves.
    rt.quiescence().await?;
    let expected = values_of(1).iter().map(|value| value + 12.0).collect::<Vec<_>>();
    assert_eq!(one.look().await?, (12, expected, values_of(0)));
    // What is sent after a chare that is still on its way finds it.
    let moves: Vec<_> = fields.elements().map(|field| field.migrate(last).future()).collect();
    fields.step().await?;
    for moved in moves {
        moved.await?;
    }
    for index in [0, 2, 3] {
        let expected = values_of(index).iter().map(|value| value + 1.0).collect::<Vec<_>>();
        assert_eq!(fields.at(index).look().await?, (1, expected, Vec::new()));
    }
    Ok(())
}

async fn a_spoiled_buffer_moves_and_stays_spoiled(rt: Runtime) -> Result<()> {
    let (fields, last) = (rt.array::<Field>(4).create(()).await?, rt.num_pes() - 1);
    fields.at(0).spoil().await?;
    for to in [last, 0, last] {
        fields.at(0).migrate(to).await?;
    }
    let error = fields.at(0).read_spoiled().await?;
    assert!(error.contains("kernel `panic` of Field[0]") && error.contains("no more 1000"), "{error}");
    fields.at(0).migrate(0).await?;
    fields.at(0).step().await?;
    assert_eq!(fields.at(0).look().await?.0, 1);
    Ok(())
}

async fn a_fault_goes_with_its_memory(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    for to in 1..rt.num_pes() {
        let error = holders.on(0).send_spoiled(holders.on(to)).await?;
        assert!(error.contains("kernel `panic` of Holder") && error.contains("no more 4"), "{error}");
        let error = holders.on(0).ask_for_spoiled(holders.on(to)).await?;
        assert!(error.contains("kernel `panic` of Holder") && error.contains("no more 4"), "{error}");
        let (promise, value) = rt.promise::<DeviceSlice<f64>>();
        holders.on(to).promise_spoiled(promise).await?;
        let error = match value.await {
            Ok(share) => holders.on(0).see(share).await.expect_err("it is spoiled"),
            Err(error) => error,
        };
        assert!(error.to_string().contains("no more 4"), "{error}");
    }
    Ok(())
}

async fn a_fault_holds_nobody_up(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let bad = holders.on(0).share_unless(0).await?;
    // Broadcasts that are numbered by now, and elements that have their places.
    let error = holders.see(bad.clone()).await.expect_err("it is spoiled").to_string();
    assert!(error.contains("no more 4"), "{error}");
    let good = holders.on(0).share_unless(1).await?;
    assert_eq!(holders.see(good.clone()).gather().await?, vec![values_of(0); rt.num_pes()]);
    let keepers = rt.array_sparse::<Keeper>().create_empty();
    for index in 0..12 {
        keepers.insert(index, if index % 3 == 0 { bad.clone() } else { good.clone() }).await?;
    }
    keepers.done_inserting().await?;
    for index in 0..12 {
        match keepers.at(index).see().await {
            Ok(values) => assert!(index % 3 != 0 && values == values_of(0), "{index}"),
            Err(error) => {
                assert!(index % 3 == 0 && error.to_string().contains("no more 4"), "{index}: {error}")
            }
        }
    }
    // One of many values.
    let last = rt.num_pes() - 1;
    for (pe, share) in holders.share_unless(last).gather().await?.into_iter().enumerate() {
        let seen = holders.on(0).see(share).await;
        assert_eq!(seen.is_err(), pe == last, "{pe}: {seen:?}");
    }
    Ok(())
}

on_each_kind! {
    shares_come_as_they_were_sent: shares_inline shares_workers shares_polled,
    buffers_get_another_owner: buffers_inline buffers_workers buffers_polled,
    what_is_written_later_does_not_show: written_later_inline written_later_workers written_later_polled,
    channels_carry_shares_of_any_length: channels_inline channels_workers channels_polled,
    a_fault_holds_nobody_up: kept_faults_inline kept_faults_workers kept_faults_polled,
    a_fault_goes_with_its_memory: faults_inline faults_workers faults_polled,
    chares_move_with_their_buffers: moves_inline moves_workers moves_polled,
    a_spoiled_buffer_moves_and_stays_spoiled: spoiled_moves_inline spoiled_moves_workers spoiled_moves_polled,
}

#[chare::test(pes = [1, 2, 4], device = "host:2:workers=2", unsimulated = "a kernel waits for who has launched it")]
async fn nothing_overtakes_a_share_that_is_not_ready(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let last = rt.num_pes() - 1;
    holders.on(0).send_in_order(holders.on(last), rt.num_pes() as u32).await?;
    rt.quiescence().await?;
    let expected = ["before", "10 elements", "between", "1000 elements", "behind"];
    assert_eq!(holders.on(last).logged().await?, expected);
    Ok(())
}

/// Waits until this one has dropped its end; what that has sent is on its way then.
async fn dropped(rt: &Runtime, holder: &Element<Holder>) -> Result<()> {
    while holder.logged().await?.is_empty() {
        rt.sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

#[chare::test(pes = [4, 8], device = "host:2:workers=2", unsimulated = "a kernel waits for who has launched it")]
async fn the_end_of_a_promise_does_not_overtake_its_value(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let [one, other] = [2, 3].map(|pe| holders.on(pe));
    let gate = 10 + rt.num_pes();
    let (promise, value) = rt.promise();
    one.keep_both(promise, other).await?;
    one.fulfil_late(other, gate as u32).send();
    dropped(&rt, &other).await?;
    GATES[gate].set(true);
    assert_eq!(holders.on(0).see(value.await?).await?, [7.0; 10]);
    Ok(())
}

#[chare::test(pes = 8, device = "host:2:workers=2", unsimulated = "a kernel waits for who has launched it")]
async fn the_end_of_a_promise_does_not_overtake_an_end_that_was_given_away(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let [waiting, one, other, third] = [0, 2, 3, 4].map(|pe| holders.on(pe));
    let gate = 20 + rt.num_pes();
    let (promise, value) = rt.promise();
    one.keep_both(promise, other).await?;
    one.give_away_late([waiting, third, other], gate as u32).send();
    dropped(&rt, &other).await?;
    while !third.fulfil_kept().await? {
        rt.sleep(Duration::from_millis(1)).await;
    }
    GATES[gate].set(true);
    assert_eq!(waiting.see(value.await?).await?, values_of(4));
    Ok(())
}
