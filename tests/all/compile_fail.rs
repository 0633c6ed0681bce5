//! The wrong programs do not compile, and the messages say why: `compile_fail/*.stderr` holds them.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
