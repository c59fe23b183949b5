use serde_json::{Value, json};

use super::{AT_ONCE, price, question, read, seat};
use crate::{ErrorKind, Price};

fn product(unit: &str, amounts: &Value) -> Value {
    json!({
        "product": {"productFamily": "Compute Instance", "attributes": {"instanceType": "t3.small"}, "sku": "S"},
        "terms": {
            "OnDemand": {"S.J": {"priceDimensions": {"S.J.6": {"unit": unit, "pricePerUnit": amounts}}}},
            "Reserved": {"S.R": {"priceDimensions": {"S.R.6": {"unit": "Hrs", "pricePerUnit": {"USD": "0.0010000000"}}}}},
        },
    })
}

#[test]
fn a_price_is_that_of_an_hour_on_demand_in_the_currency_that_is_told() {
    let of = |unit, amounts| price(&product(unit, &amounts)).map(|price| (price.micros_per_hour, price.currency));
    assert_eq!(of("Hrs", json!({"USD": "0.0240000000"})), Some((24_000, "USD".to_owned())));
    assert_eq!(of("Hrs", json!({"CNY": "0.1581000000"})), Some((158_100, "CNY".to_owned())));
    assert_eq!(of("Quantity", json!({"USD": "100"})), None);
    assert_eq!(of("Hrs", json!({"USD": "0.0000000000"})), None);
    assert_eq!(of("Hrs", json!({"USD": "a newer way to say it"})), None);
    assert_eq!(price(&json!({"terms": {}})), None);
}

#[test]
fn an_answer_is_read_or_is_none() {
    let text = product("Hrs", &json!({"USD": "0.0240000000"})).to_string();
    let (found, next) = read(&json!({"PriceList": [text, "{}"], "NextToken": "more"})).unwrap();
    let price = Price { micros_per_hour: 24_000, currency: "USD".to_owned() };
    assert_eq!((found, next), (vec![("t3.small".to_owned(), price)], Some("more".to_owned())));
    assert_eq!(read(&json!({"PriceList": []})).unwrap(), (vec![], None));
    for garbled in [json!({}), json!({"PriceList": "t3"}), json!({"PriceList": [{"product": {}}]})] {
        assert_eq!(read(&garbled).unwrap_err().kind, ErrorKind::Protocol, "{garbled}");
    }
}

#[test]
fn the_names_of_a_question_fit_into_a_filter() {
    // The longest name of today, and some more.
    let types = vec!["u7inh-32tb.480xlarge"; AT_ONCE];
    let asked = question("eu-central-1", &types, Some("next"));
    let longest = asked["Filters"].as_array().unwrap().iter().map(|filter| filter["Value"].as_str().unwrap().len());
    assert!(longest.max().unwrap() <= 1024);
    assert_eq!(
        (&asked["NextToken"], &question("eu-central-1", &types, None)["NextToken"]),
        (&json!("next"), &json!(null))
    );
}

#[test]
fn each_part_of_the_cloud_has_its_own_list_or_none() {
    assert_eq!(seat("eu-central-1").unwrap().0, "us-east-1");
    assert_eq!(seat("us-east-2").unwrap().0, "us-east-1");
    assert!(seat("cn-north-1").unwrap().1.ends_with(".amazonaws.com.cn"));
    assert_eq!((seat("us-gov-west-1"), seat("us-iso-east-1")), (None, None));
}
