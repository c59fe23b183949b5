# The same tasks as `cargo xtask`, by shorter names.

# Everything that CI runs.
ci:
    .ci/run

# A pull request becomes a live URL on this machine.
demo *arguments:
    cargo xtask demo {{arguments}}

# Tests: all, or one of unit, integration, broken, e2e.
test *suite:
    cargo xtask test {{suite}}

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

deny:
    cargo deny --log-level error check bans licenses sources
