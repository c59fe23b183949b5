//! The documentation keeps up with the code.

use stagely_api::router::operations;
use stagely_domain::failure::Code;

fn api_page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md")).unwrap()
}

#[test]
fn every_failure_code_has_its_section_with_cause_and_fix() {
    let page = api_page();
    for code in Code::ALL {
        let heading = format!("### `{}`\n", code.as_str());
        let section = page.split_once(&heading).unwrap_or_else(|| panic!("docs/api.md has no section {heading}")).1;
        let section = section.split("\n#").next().unwrap();
        assert!(section.contains("Cause:") && section.contains("Fix:"), "{heading} says no cause or no fix");
    }
}

#[test]
fn every_route_is_mentioned() {
    let page = api_page();
    for operation in operations() {
        let line = format!("`{} {}`", operation.method, operation.path);
        assert!(page.contains(&line), "docs/api.md does not mention {line}");
    }
}
