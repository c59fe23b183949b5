//! Every setting is told to operators.

use std::path::Path;

const TABLES: [(&str, &str, &str); 7] = [
    ("common", "Common", "runtime/src/config.rs"),
    ("api", "Config", "api/src/config.rs"),
    ("agent_hub", "Config", "agent-hub/src/config.rs"),
    ("orchestrator", "Config", "orchestrator/src/config.rs"),
    ("builder_scheduler", "Config", "builder-scheduler/src/config.rs"),
    ("edge_proxy", "Config", "edge-proxy/src/config.rs"),
    ("reaper", "Config", "reaper/src/service.rs"),
];

#[test]
fn every_setting_is_in_the_table_of_operations() {
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let page = std::fs::read_to_string(workspace.join("docs/operations.md")).unwrap();
    for (table, name, file) in TABLES {
        let start = format!("| `[{table}]` |");
        let row = page.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row {start}"));
        let code = std::fs::read_to_string(workspace.join("crates").join(file)).unwrap();
        let (_, rest) = code.split_once(&format!("pub struct {name} {{\n")).unwrap();
        let lines = rest.lines().take_while(|line| *line != "}");
        let fields = lines.filter_map(|line| line.strip_prefix("    pub ")?.split_once(':'));
        let settings: Vec<&str> = fields.map(|(setting, _)| setting).collect();
        assert!(!settings.is_empty(), "{file}");
        for setting in settings {
            let is_told = row.contains(&format!("`{setting}`")) || row.contains(&format!("`{setting} = {{"));
            assert!(is_told, "docs/operations.md: [{table}] lacks `{setting}`");
        }
    }
}
