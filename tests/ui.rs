//! What the attributes accept and refuse. Each file in `ui/fail` is one misuse, with the message that the user gets
//! beside it; `TRYBUILD=overwrite cargo test -p chare-tests --test ui` writes the messages anew, to be read before
//! they are committed.

#[test]
fn attributes() {
    let cases = trybuild::TestCases::new();
    cases.pass("ui/pass/*.rs");
    cases.compile_fail("ui/fail/*.rs");
}
