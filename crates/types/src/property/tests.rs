use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn setting(text: &str) -> Result<(String, String), String> {
    text.parse::<PropertySetting>().map(|one| (one.path.to_string(), one.value.to_string()))
}

#[test]
fn settings_are_a_path_and_a_literal() {
    let cases = [
        ("cycles.max_bounces=4", "cycles.max_bounces", "4"),
        ("cycles.max_bounces = 4.0", "cycles.max_bounces", "4"),
        ("view_settings.exposure=-0.5", "view_settings.exposure", "-0.5"),
        ("view_settings.exposure=-0.0", "view_settings.exposure", "0"),
        ("cycles.film_exposure=1e-3", "cycles.film_exposure", "0.001"),
        ("render.film_transparent=true", "render.film_transparent", "true"),
        ("view_settings.view_transform=Filmic", "view_settings.view_transform", "\"Filmic\""),
        ("view_settings.look=AgX - High Contrast", "view_settings.look", "\"AgX - High Contrast\""),
        ("render.stamp_note_text=\"1 = \\\"one\\\"\"", "render.stamp_note_text", "\"1 = \\\"one\\\"\""),
        ("render.stamp_note_text=\"\"", "render.stamp_note_text", "\"\""),
        ("render.stamp_note_text=É", "render.stamp_note_text", "\"É\""),
        ("gravity=[0, 0.5,-3 ]", "gravity", "[0, 0.5, -3]"),
        ("gravity[2]=-3", "gravity[2]", "-3"),
        ("some.flags=[A, \"B, [C]\\\"\", D]", "some.flags", "[\"A\", \"B, [C]\\\"\", \"D\"]"),
        ("some.flags=[]", "some.flags", "[]"),
        ("some.number=9223372036854775807", "some.number", "9223372036854775807"),
        ("render.film_transparent=True", "render.film_transparent", "true"),
        // Other constants of Python are texts here, and Blender says that it wants something else.
        ("render.film_transparent=None", "render.film_transparent", "\"None\""),
    ];
    for (text, path, value) in cases {
        assert_eq!(setting(text), Ok((path.to_owned(), value.to_owned())), "{text}");
    }
}

#[test]
fn what_is_no_setting_is_refused() {
    let long = format!("a{}=1", ".a".repeat(8));
    let long_name = format!("{}=1", "a".repeat(64));
    let long_text = format!("a={}", "b".repeat(1025));
    let long_list = format!("a=[{}1]", "1,".repeat(64));
    let bad = [
        "",
        "a",
        "=1",
        ".a=1",
        "a.=1",
        "a..b=1",
        "1a=1",
        "a b=1",
        "a[x]=1",
        "a[-1]=1",
        "a[01]=1",
        "a[100]=1",
        "a[1].b=1",
        "a[0][1]=1",
        "a[\"x\"]=1",
        "é=1",
        "a-b=1",
        "a()=1",
        "a=",
        "a= ",
        "a=1x",
        "a=+1",
        "a=.5",
        "a=0x10",
        "a=1_000",
        "a=-",
        "a=1e999",
        "a=\"",
        "a=\"x",
        "a=\"x\"y",
        "a=(1, 2)",
        "a={}",
        "a=[1",
        "a=1]",
        "a=[[1]]",
        "a=[1,]",
        "a=[,]",
        "a='x'",
        "a=\u{7}",
        "a=x\ny",
        "a=\"\\u0000\"",
        "a=-inf",
        &long,
        &long_name,
        &long_text,
        &long_list,
    ];
    for text in bad {
        assert!(setting(text).is_err(), "{text}");
    }
    let too_many = |count: usize| {
        (0..count).map(|at| format!("a{at}=1").parse::<PropertySetting>().unwrap()).collect::<Properties>()
    };
    assert!(too_many(64).check().is_ok());
    assert!(too_many(65).check().unwrap_err().contains("64"));
}

#[test]
fn a_reserved_property_is_refused_with_the_option_to_use() {
    let cases = [
        ("render.resolution_x", "--resolution"),
        ("render.resolution_x[0]", "--resolution"),
        ("view_layers.use", "--view-layer"),
        ("frame_start", "--frames"),
        ("render.use_persistent_data", "by Kiln"),
        ("world.color", "set it in Blender and save"),
    ];
    for (path, words) in cases {
        let error = setting(&format!("{path}=1")).unwrap_err();
        assert!(error.contains(words) && error.contains(path), "{error}");
        // The API's requests are held against the same table.
        let json = format!("{{\"{path}\": 1}}");
        let properties: Properties = serde_json::from_str(&json).unwrap();
        assert_eq!(properties.check().unwrap_err(), error);
    }
    assert!(
        setting("names=1").is_ok() && setting("render.fps_of_nothing=1").is_ok(),
        "only whole names are reserved"
    );
}

#[test]
fn json_holds_the_values_as_they_are() {
    let json = r#"{"a":true,"b":4,"c":0.5,"d":"x","e[1]":[1,2.5,"y",false]}"#;
    let properties: Properties = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&properties).unwrap(), json);
    assert_eq!(
        (properties.switch("a"), properties.text("d"), properties.text("a")),
        (Some(true), Some("x"), None)
    );
    let same: Properties =
        serde_json::from_str(r#"{"b":4.0,"c":5e-1,"a":true,"d":"x","e[1]":[1.0,2.5,"y",false]}"#).unwrap();
    assert_eq!(same, properties, "a value is one however it is written");
    let mut list = String::from("0");
    (0..64).for_each(|_| write!(list, ",0").unwrap());
    let long = "x".repeat(1025);
    for bad in [
        r#"{"a":null}"#,
        r#"{"a":{}}"#,
        r#"{"a":[[1]]}"#,
        r#"{"a b":1}"#,
        r#"{"":1}"#,
        r#"{"a":"\u0007"}"#,
        &format!(r#"{{"a":"{long}"}}"#),
        &format!(r#"{{"a":[{list}]}}"#),
    ] {
        assert!(serde_json::from_str::<Properties>(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_later_value_counts_and_a_member_beside_its_array_is_refused() {
    let properties = |texts: &[&str]| -> Properties {
        texts.iter().map(|text| text.parse::<PropertySetting>().unwrap()).collect()
    };
    assert_eq!(properties(&["a=1", "b=2", "a=3"]), properties(&["b=2", "a=3"]));
    assert!(properties(&["gravity[1]=0", "gravity[2]=1"]).check().is_ok());
    let error = properties(&["gravity[1]=0", "gravity=[0, 0, 0]"]).check().unwrap_err();
    assert!(error.contains("gravity[1]"), "{error}");
}

fn any_item() -> impl Strategy<Value = PropertyItem> {
    prop_oneof![
        any::<bool>().prop_map(PropertyItem::Switch),
        any::<i64>().prop_map(PropertyItem::Whole),
        any::<f64>().prop_filter_map("finite", |number| PropertyItem::number(number).ok()),
        "[^\\x00-\\x1f\\x7f-\\x9f]{0,40}".prop_map(PropertyItem::Text),
    ]
}

fn any_value() -> impl Strategy<Value = PropertyValue> {
    prop_oneof![
        any_item().prop_map(PropertyValue::One),
        proptest::collection::vec(any_item(), 0..5).prop_map(PropertyValue::Many),
    ]
}

proptest! {
    #[test]
    fn a_value_reads_back_from_its_literal_and_from_json(value in any_value()) {
        prop_assert_eq!(value.to_string().parse::<PropertyValue>(), Ok(value.clone()));
        let json = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(serde_json::from_str::<PropertyValue>(&json).unwrap(), value);
    }

    /// Hostile texts, too, are refused or read back as themselves.
    #[test]
    fn any_text_is_refused_or_is_one_setting(text in ".{0,60}") {
        if let Ok((path, value)) = setting(&text) {
            prop_assert_eq!(setting(&format!("{path}={value}")), Ok((path, value)));
        }
    }

    #[test]
    fn any_text_like_a_setting_is_refused_or_is_one(text in "[a-c_.\\[\\]0-9]{1,12}=[\\[\\]\",a-c0-9.eE\\\\ +-]{0,24}") {
        if let Ok((path, value)) = setting(&text) {
            prop_assert_eq!(setting(&format!("{path}={value}")), Ok((path, value)));
        }
    }
}
