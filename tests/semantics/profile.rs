//! The profile of a run: what each entry has done on each PE, counted exactly, and times that add up.

use std::time::{Duration, Instant};

use chare::prelude::*;
use chare::{EntryProfile, ExitReport, MainOutput, Messages, Options, Profile, Sent};

const PES: [usize; 3] = [1, 2, 4];
const BLOCKS: u64 = 8;
/// How long a busy entry is busy, at least.
const BUSY: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Block {
    hits: u64,
}

#[chare(index = usize)]
impl Block {
    fn new() -> Self {
        Block::default()
    }

    #[entry]
    fn hit(&mut self, amount: u64, _wide: [u64; 3]) {
        self.hits += amount;
    }

    /// Hits the next block `count` times.
    #[entry]
    fn hit_next(&self, cx: &Cx<Self>, count: u64) {
        let next = cx.array().at((cx.index() + 1) % cx.array().shape());
        (0..count).for_each(|_| next.hit(1, [0; 3]).send());
    }

    #[entry]
    fn hit_all(&self, cx: &Cx<Self>) {
        cx.array().hit(1, [0; 3]).send();
    }

    #[entry]
    fn urgent(&self) {}

    #[entry]
    fn hits(&self) -> u64 {
        self.hits
    }

    #[entry]
    async fn ask_next(this: This<Self>, times: u64) -> Result<u64> {
        let next = this.array().at((this.index() + 1) % this.array().shape());
        let mut sum = 0;
        for _ in 0..times {
            sum += next.hits().await?;
        }
        Ok(sum)
    }

    /// Sends values to the next block and takes as many from the one before, by every way to do so. The last ones are
    /// sent by permits that were taken before credit was used up, so they go by the backlog too.
    #[entry]
    async fn exchange(this: This<Self>, count: u64) -> Result<()> {
        let shape = this.array().shape();
        let at = |by| this.array().at((this.index() + by) % shape);
        let (to, from) =
            (this.channel::<[u64; 4], _>(&at(1), 1), this.channel::<[u64; 4], _>(&at(shape - 1), 1));
        let permit = to.reserve().await;
        for number in 1..count {
            to.send([number; 4])?;
        }
        permit.send([0; 4]);
        let mut sum = from.recv().await?[0];
        for _ in 1..count {
            sum += match from.try_recv()? {
                Some([number, ..]) => number,
                None => from.recv().await?[0],
            };
        }
        assert_eq!(sum, count * (count - 1) / 2);
        assert!(from.try_recv()?.is_none());
        Ok(())
    }

    /// Owns the block until the key is used.
    #[entry]
    async fn own(&mut self, cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<()> {
        let (open, opened) = cx.promise();
        key.send(open)?;
        Ok(opened.await?)
    }

    #[entry]
    fn give(&self, cx: &Cx<Self>, sum: Promise<u64>) {
        cx.contribute(1_u64, reduce::Sum, sum);
    }

    #[entry]
    fn be_busy(&self) {
        stay_busy();
    }

    #[entry(when = |block: &Self| block.hits > 0)]
    fn be_busy_once_hit(&self) {
        stay_busy();
    }

    #[entry(inline)]
    fn be_busy_at_once(&self, next: Element<Block>) {
        stay_busy();
        next.urgent().send();
    }

    /// Keeps neighbours busy on its own stack.
    #[entry]
    fn call_directly(&self, cx: &Cx<Self>, count: u64) {
        stay_busy();
        let other = cx.array().at(cx.index() + 1);
        (0..count).for_each(|_| other.be_busy_at_once(other).send());
        stay_busy();
    }
}

fn stay_busy() {
    let began = Instant::now();
    while began.elapsed() < BUSY {
        std::hint::spin_loop();
    }
}

/// Is busy when it arrives and when it goes.
struct Guest;

#[chare]
impl Guest {
    fn new() -> Self {
        Guest
    }

    fn migrated(&mut self) {
        stay_busy();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        stay_busy();
    }
}

/// Is constructed by a coroutine.
struct Late;

#[chare]
impl Late {
    async fn new(_cx: &Cx<Self>, of: Array<Block>) -> Result<Self> {
        of.at(0).hits().await?;
        Ok(Late)
    }
}

fn report_of<F, Fut, R>(pes: usize, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let options = Options::default().with_pes(pes).with_profile(true);
    let report = Runtime::run(options, main).expect("the host device is always there");
    assert!(report.is_success(), "{report}");
    report
}

/// The profile of a program with an array of blocks; its times add up.
fn profile_of<F, Fut>(pes: usize, main: F) -> Profile
where
    F: FnOnce(Runtime, Array<Block>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let report = report_of(pes, async move |rt: Runtime| {
        let blocks = rt.array::<Block>(BLOCKS as usize).create(()).await?;
        main(rt.clone(), blocks).await?;
        rt.quiescence().await?;
        Result::<()>::Ok(())
    });
    let profile = report.profile().expect("it was asked for").clone();
    assert_eq!(profile.pes.iter().map(|pe| pe.pe.index()).collect::<Vec<_>>(), (0..pes).collect::<Vec<_>>());
    for pe in &profile.pes {
        let in_entries: Duration = pe.entries.iter().map(|entry| entry.self_time).sum();
        assert_eq!(in_entries + pe.idle + pe.runtime, pe.wall, "{profile}");
        assert!(pe.entries.iter().all(|entry| entry.longest_step <= entry.self_time), "{profile}");
        assert!(pe.entries.iter().all(|entry| entry.mean_step() <= entry.longest_step), "{profile}");
    }
    let blocks_here = profile.pes.iter().map(|pe| pe.entry("Block", "new").map_or(0, |new| new.calls));
    assert_eq!(blocks_here.collect::<Vec<_>>(), vec![BLOCKS / pes as u64; pes], "{profile}");
    profile
}

fn of(profile: &Profile, entry: &str) -> EntryProfile {
    let chare = if entry == "main" { "main" } else { "Block" };
    profile.entry(chare, entry).unwrap_or_else(|| panic!("no {entry} in {profile}"))
}

fn messages(count: u64, bytes_each: u64) -> Messages {
    Messages { count, bytes: count * bytes_each }
}

#[test]
fn messages_are_counted_for_who_sends_and_who_takes_them() {
    for pes in PES {
        let profile = profile_of(pes, async |_, blocks| {
            (0..BLOCKS as usize).for_each(|block| blocks.at(block).hit_next(10).send());
            (0..5).for_each(|_| blocks.at(7).hit(1, [0; 3]).send());
            blocks.at(7).urgent().expedited().send();
            blocks.at(0).urgent().priority(3).send();
            Ok(())
        });
        let (main, hit_next, hit) = (of(&profile, "main"), of(&profile, "hit_next"), of(&profile, "hit"));
        assert_eq!(main.calls, 1);
        assert_eq!(
            main.sent.calls,
            Messages { count: BLOCKS + 5 + 2, bytes: 8 * BLOCKS + 5 * 32 },
            "{profile}"
        );
        assert_eq!((hit_next.calls, hit_next.received), (BLOCKS, messages(BLOCKS, 8)), "{profile}");
        assert_eq!(hit_next.sent.calls, messages(10 * BLOCKS, 32), "{profile}");
        assert_eq!((hit.calls, hit.received), (10 * BLOCKS + 5, messages(10 * BLOCKS + 5, 32)), "{profile}");
        assert_eq!((hit.resumes, hit.sent), (0, Sent::default()), "{profile}");
        assert_eq!((of(&profile, "urgent").calls, of(&profile, "urgent").received), (2, messages(2, 0)));
        // Each PE has its own: all blocks but one take what their neighbours send them.
        let last = profile.pes.last().and_then(|pe| pe.entry("Block", "hit")).map(|hit| hit.calls);
        assert_eq!(last, Some(10 * BLOCKS / pes as u64 + 5), "{profile}");
        let [to_others, from_others]: [u64; 2] = [
            profile.pes.iter().map(|pe| pe.to_other_pes).sum(),
            profile.pes.iter().map(|pe| pe.from_others).sum(),
        ];
        assert_eq!(to_others, from_others, "{profile}");
        // Where the last block of a PE hits the first one of the next.
        let least: u64 = if pes == 1 { 0 } else { 10 * pes as u64 };
        assert!(to_others >= least && (pes > 1 || to_others == 0), "{profile}");
    }
}

#[test]
fn broadcasts_count_once_where_they_are_sent_and_at_each_element() {
    for pes in PES {
        let profile = profile_of(pes, async |_, blocks| {
            blocks.hit(1, [0; 3]).await?;
            blocks.at(3).hit_all().await?;
            assert_eq!(blocks.hits().gather().await?.len(), BLOCKS as usize);
            Ok(())
        });
        let hit = of(&profile, "hit");
        assert_eq!((hit.calls, hit.received), (2 * BLOCKS, Messages::default()), "{profile}");
        assert_eq!(of(&profile, "main").sent.broadcasts, 2, "{profile}");
        assert_eq!(of(&profile, "hit_all").sent, Sent { broadcasts: 1, ..Sent::default() }, "{profile}");
        assert_eq!(of(&profile, "hits").calls, BLOCKS, "{profile}");
    }
}

#[test]
fn contributions_count_where_they_are_made() {
    for pes in PES {
        let profile = profile_of(pes, async |rt, blocks| {
            let (sum, total) = rt.promise();
            blocks.give(sum).send();
            assert_eq!(total.await?, BLOCKS);
            Ok(())
        });
        assert_eq!(of(&profile, "give").sent, Sent { contributions: BLOCKS, ..Sent::default() }, "{profile}");
    }
}

#[test]
fn coroutines_count_their_resumes() {
    for pes in PES {
        let profile = profile_of(pes, async |rt, blocks| {
            assert_eq!(blocks.at(3).ask_next(4).await?, 0);
            blocks.at(5).ask_next(3).await?;
            rt.single::<Late>().create(blocks).await?;
            Ok(())
        });
        let ask = of(&profile, "ask_next");
        assert_eq!((ask.calls, ask.resumes, ask.received), (2, 7, messages(2, 8)), "{profile}");
        assert_eq!(ask.sent.calls, messages(7, 0), "{profile}");
        let late = profile.entry("Late", "new").expect("it was constructed");
        assert_eq!((late.calls, late.resumes, late.sent.calls), (1, 1, messages(1, 0)), "{profile}");
    }
}

#[test]
fn values_of_channels_are_counted_for_who_sends_and_who_takes_them() {
    // More than the credit of a channel.
    const EACH: u64 = 3_000;
    for pes in PES {
        let profile = profile_of(pes, async |_, blocks| Ok(blocks.exchange(EACH).await?));
        let (exchange, values) = (of(&profile, "exchange"), messages(BLOCKS * EACH, 32));
        assert_eq!((exchange.sent.values, exchange.received_values), (values, values), "{profile}");
        assert_eq!(
            (exchange.sent.calls, exchange.received),
            (Messages::default(), Messages::default()),
            "{profile}"
        );
        let others = profile.total().into_iter().filter(|entry| entry.entry.name != "exchange");
        let by_others =
            others.map(|entry| entry.sent.values.count + entry.received_values.count).sum::<u64>();
        assert_eq!(by_others, 0, "{profile}");
        for pe in &profile.pes {
            let exchange = pe.entry("Block", "exchange").expect("it ran on each PE");
            let values = messages(BLOCKS / pes as u64 * EACH, 32);
            assert_eq!((exchange.sent.values, exchange.received_values), (values, values), "{profile}");
            assert_eq!(pe.sent_by_runtime, Sent::default(), "{profile}");
        }
    }
}

#[test]
fn a_message_that_is_held_counts_once() {
    for pes in PES {
        let profile = profile_of(pes, async |rt, blocks| {
            let (key, waiting) = rt.promise();
            let block = blocks.at(6);
            block.own(key).send();
            let open = waiting.await?;
            let held: Vec<_> = (0..3).map(|_| block.hit(1, [0; 3]).future()).collect();
            // It comes after them from the same PE, and what is held is no call yet.
            blocks.at(7).hits().await?;
            open.send(())?;
            for held in held {
                held.await?;
            }
            Ok(())
        });
        let hit = of(&profile, "hit");
        assert_eq!((hit.calls, hit.received), (3, messages(3, 32)), "{profile}");
        assert_eq!((of(&profile, "own").calls, of(&profile, "own").resumes), (1, 1), "{profile}");
    }
}

#[test]
fn time_belongs_to_who_spends_it() {
    for pes in PES {
        let profile = profile_of(pes, async |_, blocks| {
            blocks.at(0).be_busy().await?;
            Ok(blocks.be_busy().await?)
        });
        let busy = of(&profile, "be_busy");
        assert_eq!(busy.calls, BLOCKS + 1);
        assert!(busy.longest_step >= BUSY && busy.self_time >= BUSY * busy.calls as u32, "{profile}");
        assert!(busy.mean_step() >= BUSY, "{profile}");
        assert!(profile.total().windows(2).all(|pair| pair[0].self_time >= pair[1].self_time), "{profile}");
        let text = profile.to_string();
        assert!(["Block.be_busy", "all PEs:", "PE 0: "].iter().all(|words| text.contains(words)), "{text}");
    }
}

#[test]
fn a_call_that_is_kept_counts_once_and_has_its_time_when_it_runs() {
    for pes in PES {
        let profile = profile_of(pes, async |rt, blocks| {
            (0..3).for_each(|_| blocks.at(6).be_busy_once_hit().send());
            rt.quiescence().await?;
            blocks.at(6).hit(1, [0; 3]).send();
            Ok(())
        });
        let kept = of(&profile, "be_busy_once_hit");
        assert_eq!((kept.calls, kept.resumes, kept.received), (3, 3, messages(3, 0)), "{profile}");
        assert!(kept.self_time >= 3 * BUSY, "{profile}");
    }
}

#[test]
fn what_is_called_on_the_stack_is_not_its_callers() {
    for pes in PES {
        let profile = profile_of(pes, async |_, blocks| Ok(blocks.at(0).call_directly(5).await?));
        let (caller, called) = (of(&profile, "call_directly"), of(&profile, "be_busy_at_once"));
        assert_eq!((called.calls, called.resumes, called.sent.calls), (5, 0, messages(5, 0)), "{profile}");
        assert_eq!(called.received, Messages::default(), "{profile}");
        assert!(called.self_time >= 5 * BUSY, "{profile}");
        // Its one step goes on after each of them.
        assert_eq!((caller.calls, caller.sent.calls.count), (1, 0), "{profile}");
        assert!(caller.longest_step >= 2 * BUSY && caller.longest_step == caller.self_time, "{profile}");
        assert_eq!(of(&profile, "urgent").calls, 5, "{profile}");
    }
}

#[test]
fn hooks_and_destructors_have_their_own_time() {
    for pes in PES {
        let profile = profile_of(pes, async |rt, _| {
            let guest = rt.single::<Guest>().on_pe(0).create(()).await?;
            for to in rt.pes().chain(rt.pes().take(1)) {
                guest.migrate(to).await?;
            }
            Ok(guest.destroy().await?)
        });
        let guest = |entry| profile.entry("Guest", entry);
        let moves = if pes == 1 { None } else { Some(pes as u64) };
        assert_eq!(guest("migrated").map(|hook| hook.calls), moves, "{profile}");
        assert!(guest("migrated").is_none_or(|hook| hook.self_time >= BUSY * hook.calls as u32), "{profile}");
        assert_eq!(guest("new").map(|new| new.calls), Some(1), "{profile}");
        let dropped = guest("drop").expect("it was destroyed");
        assert!(dropped.calls == 1 && dropped.self_time >= BUSY, "{profile}");
        assert!(profile.entry("Block", "drop").is_none(), "it has nothing to drop, {profile}");
    }
}

#[test]
fn a_run_that_is_not_asked_has_no_profile() {
    let report = super::run(2, async |rt: Runtime| rt.quiescence().await);
    assert!(report.profile().is_none(), "{report}");
}

#[test]
fn what_the_runtime_and_other_threads_send_is_not_an_entrys() {
    for pes in PES {
        let profile = profile_of(pes, async |rt, blocks| {
            let handle = rt.handle();
            let thread = std::thread::spawn(move || {
                let _entered = handle.enter();
                blocks.at(1).hit(1, [0; 3]).send();
            });
            thread.join().expect("it only sends");
            Ok(())
        });
        assert_eq!(of(&profile, "hit").received, messages(1, 32), "{profile}");
        assert_eq!(profile.total().iter().map(|entry| entry.sent.calls.count).sum::<u64>(), 0, "{profile}");
    }
}
