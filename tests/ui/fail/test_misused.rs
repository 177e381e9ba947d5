#[chare::test]
fn not_async() {}

#[chare::test(pes = 0)]
async fn no_pes() {}

#[chare::test(pes = [])]
async fn no_counts() {}

#[chare::test(pes = [2, 2])]
async fn same_counts() {}

#[chare::test(pes = "4")]
async fn string_of_pes() {}

#[chare::test(pes)]
async fn pes_without_number() {}

#[chare::test(device = 2)]
async fn device_number() {}

#[chare::test(device = "host", threads = 3, device = "host")]
async fn other_options() {}

#[chare::test(seeds)]
async fn seeds_without_number() {}

#[chare::test(seeds = 0)]
async fn no_seeds() {}

#[chare::test(unsimulated)]
async fn no_reason() {}

#[chare::test(unsimulated = "")]
async fn empty_reason() {}

#[chare::test(seeds = 2, unsimulated = "it starts a thread")]
async fn simulated_and_not() {}

#[chare::test(one_process)]
async fn no_reason_to_stay() {}

#[chare::test(one_process = " ")]
async fn empty_reason_to_stay() {}

#[chare::test(ends)]
async fn no_end() {}

#[chare::test]
#[test]
async fn test_twice() {}

#[chare::test]
async fn generic<T>() {}

#[chare::test]
async unsafe fn risky() {}

fn main() {}
