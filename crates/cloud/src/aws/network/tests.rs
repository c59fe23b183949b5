use aws_sdk_ec2::types::{IpPermission, IpRange, Ipv6Range, UserIdGroupPair};

use super::{canonical, difference, is_wanted};

fn rule(port: i32, cidrs: &[&str]) -> IpPermission {
    let mut rule = IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port);
    for cidr in cidrs {
        rule = if cidr.contains(':') {
            rule.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(*cidr).build())
        } else {
            rule.ip_ranges(IpRange::builder().cidr_ip(*cidr).build())
        };
    }
    rule.build()
}

fn cidrs(rule: &IpPermission) -> Vec<&str> {
    let four = rule.ip_ranges().iter().filter_map(IpRange::cidr_ip);
    four.chain(rule.ipv6_ranges().iter().filter_map(Ipv6Range::cidr_ipv6)).collect()
}

#[test]
fn rules_are_added_and_taken_away_until_they_are_the_ones_we_want() {
    let wanted = ["192.0.2.0/24".to_owned(), "2001:db8::/64".to_owned()];
    let (missing, surplus) = difference(&[], 7443, &wanted);
    assert_eq!(cidrs(&missing.unwrap()), ["192.0.2.0/24", "2001:db8::/64"]);
    assert!(surplus.is_empty());
    let right = rule(7443, &["192.0.2.0/24", "2001:db8::/64"]);
    assert_eq!(difference(std::slice::from_ref(&right), 7443, &wanted), (None, vec![]));
    let (missing, surplus) =
        difference(&[rule(7443, &["192.0.2.0/24", "0.0.0.0/0"]), rule(22, &["::/0"])], 7443, &wanted);
    assert_eq!(cidrs(&missing.unwrap()), ["2001:db8::/64"]);
    assert_eq!(
        surplus,
        [rule(7443, &["0.0.0.0/0"]), rule(22, &["::/0"])].map(|mut rule| {
            rule.ip_ranges.get_or_insert_default();
            if rule.from_port == Some(7443) {
                rule.ipv6_ranges.get_or_insert_default();
            } else {
                rule.ip_ranges = None;
            }
            rule
        })
    );
    let group = UserIdGroupPair::builder().group_id("sg-1").build();
    let open = IpPermission::builder().ip_protocol("-1").user_id_group_pairs(group).build();
    assert_eq!(difference(&[right, open.clone()], 7443, &wanted), (None, vec![open]));
}

#[test]
fn a_region_stands_for_its_zones() {
    let places = |places: &[&str]| places.iter().map(|place| (*place).to_owned()).collect::<Vec<_>>();
    assert!(is_wanted("eu-central-1a", &[]));
    assert!(is_wanted("eu-central-1a", &places(&["eu-west-1", "eu-central-1"])));
    assert!(is_wanted("eu-central-1a", &places(&["eu-central-1a"])));
    assert!(!is_wanted("eu-central-1b", &places(&["eu-central-1a"])));
    assert!(!is_wanted("eu-west-12a", &places(&["eu-west-1"])));
}

#[test]
fn a_network_in_other_words_is_the_same_network() {
    for (written, shown) in [
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("203.0.113.7/32", "203.0.113.7/32"),
        ("203.0.113.7/0", "0.0.0.0/0"),
        ("2001:DB8:0:0::7/64", "2001:db8::/64"),
        ("2001:db8::7/128", "2001:db8::7/128"),
        ("::1/0", "::/0"),
        ("somewhere", "somewhere"),
        ("1.2.3.4/99", "1.2.3.4/99"),
    ] {
        assert_eq!(canonical(written), shown);
        let found = rule(7443, &[shown]);
        if shown.contains('.') || shown.contains(':') {
            assert_eq!(difference(&[found], 7443, &[written.to_owned()]), (None, vec![]), "{written}");
        }
    }
}
