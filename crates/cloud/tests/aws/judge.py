"""Judges both sides of the price list by boto3 and the service's own model: what our client asked for, and what the
double answers. Arguments: the double's URL; a file with the bodies that our client sent, as a list in JSON; a file with
what our client read of the answers, type to millionths of a dollar."""

import json
import sys
from decimal import Decimal

import boto3
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

url, asked, read = sys.argv[1:]
pricing = boto3.client(
    "pricing",
    region_name="us-east-1",
    endpoint_url=url,
    aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
    aws_secret_access_key="a-secret",
)
model = pricing.meta.service_model.operation_model("GetProducts")
kinds = model.service_model.shape_for("FilterType").enum
bodies = json.load(open(asked))
assert bodies, "nothing was asked for"
for body in bodies:
    report = ParamValidator().validate(body, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    assert all(one["Type"] in kinds for one in body["Filters"]), body["Filters"]

prices = {}
firsts = [body for body in bodies if "NextToken" not in body]
for body in firsts:
    for page in pricing.get_paginator("get_products").paginate(**body):
        for text in page["PriceList"]:
            product = json.loads(text)
            (term,) = product["terms"]["OnDemand"].values()
            (dimension,) = term["priceDimensions"].values()
            attributes = product["product"]["attributes"]
            assert (attributes["operatingSystem"], attributes["tenancy"]) == ("Linux", "Shared"), attributes
            prices[attributes["instanceType"]] = int(Decimal(dimension["pricePerUnit"]["USD"]) * 1000000)
assert len(firsts) < len(bodies), "nothing was paged"
assert prices == json.load(open(read)), prices

try:
    pricing.get_products(ServiceCode="AmazonEC2", FormatVersion="aws_v1", Filters=[], NextToken="nonsense")
    raise AssertionError("a token that was never given was taken")
except ClientError as error:
    assert error.response["Error"]["Code"] == "InvalidParameterException", error.response
