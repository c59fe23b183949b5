use std::collections::BTreeSet;

use serde_json::Value;

use super::{ALL, Effect, permissions};

/// Actions that make something, which must then carry our tag.
const MAKES: [&str; 3] = ["ec2:RunInstances", "ec2:CreateImage", "ec2:CreateSecurityGroup"];

fn statements() -> Vec<Value> {
    let text = include_str!("../../../../../deploy/aws/iam-policy.json");
    let policy: Value = serde_json::from_str(text).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    policy["Statement"].as_array().unwrap().clone()
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        many => many.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
    }
}

#[test]
fn the_policy_allows_what_is_sent_and_nothing_else() {
    let allowed: BTreeSet<String> = statements().iter().flat_map(|statement| words(&statement["Action"])).collect();
    assert_eq!(allowed, permissions().map(str::to_owned).collect());
    assert!(statements().iter().all(|statement| statement["Effect"] == "Allow"));
}

#[test]
fn what_changes_something_is_bound_to_our_tag() {
    for action in ALL.iter().filter(|action| action.effect == Effect::Change) {
        let name = action.permission;
        let of_action: Vec<Value> = statements()
            .into_iter()
            .filter(|statement| words(&statement["Action"]).contains(&name.to_owned()))
            .collect();
        let bound = if name == "ec2:CreateTags" {
            of_action.iter().all(|statement| {
                let on = words(&statement["Condition"]["StringEquals"]["ec2:CreateAction"]);
                on == ["RunInstances", "CreateImage", "CreateSecurityGroup"]
            })
        } else if MAKES.contains(&name) {
            // The new thing must be tagged; what it is made of or in is not ours.
            of_action.iter().any(|statement| {
                statement["Condition"]["Null"]["aws:RequestTag/stagely-installation"] == "false"
                    && words(&statement["Resource"]).iter().any(|arn| arn.ends_with("/*"))
            })
        } else {
            of_action
                .iter()
                .all(|statement| statement["Condition"]["Null"]["aws:ResourceTag/stagely-installation"] == "false")
        };
        assert!(bound && !of_action.is_empty(), "{name}");
    }
}

#[test]
fn nothing_new_can_be_made_without_a_tag() {
    for statement in statements() {
        let makes = words(&statement["Action"]).iter().any(|action| MAKES.contains(&&**action));
        if !makes || statement["Condition"]["Null"]["aws:RequestTag/stagely-installation"] == "false" {
            continue;
        }
        // An image holds what is on the machine that it is made of: it must be ours.
        if words(&statement["Action"]) == ["ec2:CreateImage"] {
            assert_eq!(statement["Condition"]["Null"]["aws:ResourceTag/stagely-installation"], "false");
            assert_eq!(words(&statement["Resource"]), ["arn:aws:ec2:*:*:instance/*"]);
            continue;
        }
        for arn in words(&statement["Resource"]) {
            let kind = arn.rsplit(':').next().unwrap().to_owned();
            assert!(["image/*", "subnet/*", "security-group/*", "vpc/*"].contains(&&*kind), "{arn}");
            let both = words(&statement["Action"]).contains(&"ec2:CreateSecurityGroup".to_owned());
            assert!(!both || kind == "vpc/*", "{arn}");
        }
    }
}
