package sluice;

import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Readers of single values: what a source wrote, in base units; null for a blank. */
final class Values {
    record Ended(String outcome, boolean stays) {}

    record Severity(int number, String text) {}

    static final Set<String> EPOCH_UNITS = Set.of(
            "sec", "seconds", "epoch", "ms", "millis", "milliseconds", "us", "micros", "microseconds", "ns", "nanos",
            "nanoseconds", "unixnano");
    static final Map<String, Double> SECONDS_IN = new HashMap<>();
    static final Map<String, Long> BYTES_IN = new HashMap<>();
    private static final Map<String, String> OUTCOMES = new HashMap<>();
    private static final Map<String, Severity> SEVERITIES = new HashMap<>();
    private static final Set<String> BLANKS = Set.of(
            "", "-", "--", "n/a", "[n/a]", "na", "nan", "null", "(null)", "none", "nil", "undefined",
            "[not supported]");

    static {
        put(SECONDS_IN, 1e-9, "ns nano nanos nanosecond nanoseconds");
        put(SECONDS_IN, 1e-6, "us µs micro micros microsecond microseconds");
        put(SECONDS_IN, 1e-3, "ms msec msecs milli millis millisecond milliseconds");
        put(SECONDS_IN, 1.0, "s sec secs second seconds");
        put(SECONDS_IN, 60.0, "m min mins minute minutes");
        put(SECONDS_IN, 3_600.0, "h hr hrs hour hours");
        put(SECONDS_IN, 86_400.0, "d day days");
        put(BYTES_IN, 1L, "b byte bytes o octet octets");
        long decimal = 1;
        long binary = 1;
        for (char prefix : "kmgtp".toCharArray()) {
            decimal *= 1000;
            binary *= 1024;
            put(BYTES_IN, decimal, "%1$s %1$sb %1$so %1$sbytes".formatted(prefix));
            put(BYTES_IN, binary, "%1$si %1$sib %1$sio %1$sibytes".formatted(prefix));
        }
        put(OUTCOMES, "success",
                "success successful successfully succeeded succeed ok okay done completed complete finished passed "
                        + "pass true yes accepted delivered");
        put(OUTCOMES, "failure",
                "failure failed fail error errored err ko false no aborted crashed killed rejected refused denied "
                        + "faulted exception fatal invalid");
        put(OUTCOMES, "timeout", "timeout timedout timeouted deadlineexceeded expired");
        put(OUTCOMES, "cancelled", "cancelled canceled cancel stopped interrupted revoked");
        put(OUTCOMES, "skipped", "skipped skip ignored disabled noop notrun notmodified");
        int number = 1;
        for (String level : "trace debug info warn error fatal".split(" ")) {
            for (int step = 1; step <= 4; step++, number++) {
                String word = step == 1 ? level : level + step;
                SEVERITIES.put(word, new Severity(number, word.toUpperCase(Locale.ROOT)));
            }
        }
        SEVERITIES.put("warning", new Severity(13, "WARN"));
        SEVERITIES.put("critical", new Severity(18, "ERROR2"));
    }

    private static <V> void put(Map<String, V> into, V value, String words) {
        for (String word : words.split(" ")) {
            into.put(word, value);
        }
    }

    private Values() {}

    static boolean isBlank(Object value) {
        return value == null
                || value instanceof String text && text.length() <= 64
                        && BLANKS.contains(text.strip().toLowerCase(Locale.ROOT));
    }

    // numbers

    private static final Pattern COMMA = Pattern.compile("[+-]?\\d+,\\d+");

    static double number(String text) {
        return Double.parseDouble(COMMA.matcher(text).matches() ? text.replace(',', '.') : text.replace(",", ""));
    }

    // times

    private static final DateTimeFormatter DAY_FIRST = DateTimeFormatter.ofPattern("dd/MM/yyyy HH:mm:ss");

    static String timestamp(Object value, String unit) {
        if (isBlank(value)) {
            return null;
        }
        if (value instanceof String text) {
            return instant(text.strip()).toString();
        }
        double number = ((Number) value).doubleValue();
        long perSecond = switch (unit.isEmpty() ? magnitude(number) : unit) {
            case "ms", "millis", "milliseconds" -> 1_000L;
            case "us", "micros", "microseconds" -> 1_000_000L;
            case "ns", "nanos", "nanoseconds", "unixnano" -> 1_000_000_000L;
            default -> 1L;
        };
        if (value instanceof Long whole) {
            if (whole == 0) {
                return null;
            }
            long nanos = Math.floorMod(whole, perSecond) * (1_000_000_000L / perSecond);
            return Instant.ofEpochSecond(Math.floorDiv(whole, perSecond), nanos).toString();
        }
        long nanos = Math.round(number * (1_000_000_000L / perSecond));
        return Instant.ofEpochSecond(0, nanos).toString();
    }

    private static String magnitude(double number) {
        if (number < 1e11) {
            return "sec";
        }
        return number < 1e14 ? "ms" : number < 1e17 ? "us" : "ns";
    }

    private static Instant instant(String text) {
        if (text.length() >= 10 && text.charAt(2) == '/') {
            return LocalDateTime.parse(text, DAY_FIRST).toInstant(ZoneOffset.UTC);
        }
        if (text.length() == 10) {
            return LocalDate.parse(text).atStartOfDay().toInstant(ZoneOffset.UTC);
        }
        String iso = text.charAt(10) == ' ' ? text.substring(0, 10) + 'T' + text.substring(11) : text;
        char last = iso.charAt(iso.length() - 1);
        int sign = Math.max(iso.lastIndexOf('+'), iso.lastIndexOf('-'));
        if (last == 'Z' || sign > 10) {
            return OffsetDateTime.parse(iso).toInstant();
        }
        return LocalDateTime.parse(iso).toInstant(ZoneOffset.UTC);
    }

    // durations

    private static final Pattern CLOCK =
            Pattern.compile("(?:(?:(\\d+)(?: days?,? |\\.))?(\\d+):)?([0-5]?\\d):([0-5]?\\d(?:[.,]\\d+)?)");
    private static final Pattern PART = Pattern.compile("(\\d[\\d.,]*) ?([a-zµ]+)(?:, | |$|(?=\\d))");

    static Double duration(Object value, String unit) {
        if (isBlank(value)) {
            return null;
        }
        double times = SECONDS_IN.get(unit.isEmpty() ? "s" : unit);
        if (!(value instanceof String)) {
            double number = ((Number) value).doubleValue();
            // divided, so that 12437 ms is 12.437 s exactly
            return times < 1 ? number / Math.rint(1 / times) : number * times;
        }
        String text = ((String) value).strip().toLowerCase(Locale.ROOT);
        if (text.indexOf(':') >= 0) {
            Matcher clock = CLOCK.matcher(text);
            if (!clock.matches()) {
                throw new IllegalArgumentException(text + " is no duration");
            }
            return whole(clock.group(1)) * 86_400
                    + whole(clock.group(2)) * 3_600
                    + whole(clock.group(3)) * 60
                    + Double.parseDouble(clock.group(4).replace(',', '.'));
        }
        if (!Character.isLetter(text.charAt(text.length() - 1))) {
            return number(text) * times;
        }
        double seconds = 0;
        Matcher part = PART.matcher(text);
        int at = 0;
        while (at < text.length()) {
            if (!part.find(at) || part.start() != at || !SECONDS_IN.containsKey(part.group(2))) {
                throw new IllegalArgumentException(text + " is no duration");
            }
            double share = SECONDS_IN.get(part.group(2));
            double number = number(part.group(1));
            seconds += share < 1 ? number / Math.rint(1 / share) : number * share;
            at = part.end();
        }
        return seconds;
    }

    private static double whole(String digits) {
        return digits == null ? 0 : Long.parseLong(digits);
    }

    // sizes and counts

    private static final Pattern SIZE = Pattern.compile("([+-]?\\d[\\d.,]*)\\s?([a-z]*)");

    static Long size(Object value, String unit) {
        if (isBlank(value)) {
            return null;
        }
        if (value instanceof Number number) {
            long factor = BYTES_IN.get(unit.isEmpty() ? "b" : unit);
            return number instanceof Long whole ? whole * factor : (Long) (long) (number.doubleValue() * factor + 0.5);
        }
        Matcher found = SIZE.matcher(((String) value).strip().toLowerCase(Locale.ROOT));
        if (!found.matches()) {
            throw new IllegalArgumentException(value + " is no size");
        }
        String stated = found.group(2).isEmpty() ? unit : found.group(2);
        return (long) (number(found.group(1)) * BYTES_IN.get(stated.isEmpty() ? "b" : stated) + 0.5);
    }

    static Long count(Object value) {
        if (isBlank(value)) {
            return null;
        }
        return value instanceof Number number ? number.longValue() : (Long) (long) number(((String) value).strip());
    }

    // outcomes and severities

    static Ended outcome(Object value) {
        if (isBlank(value)) {
            return null;
        }
        if (value instanceof Boolean good) {
            return new Ended(good ? "success" : "failure", false);
        }
        if (value instanceof Number code) {
            return new Ended(ofHttp(code.intValue()), true);
        }
        String word = ((String) value).strip().toLowerCase(Locale.ROOT);
        String known = OUTCOMES.get(word);
        if (known == null && (word.indexOf(' ') >= 0 || word.indexOf('_') >= 0 || word.indexOf('-') >= 0)) {
            known = OUTCOMES.get(word.replaceAll("[ _.-]", ""));
        }
        return known == null ? new Ended("unknown", true) : new Ended(known, false);
    }

    private static String ofHttp(int status) {
        return switch (status) {
            case 408, 504 -> "timeout";
            case 499 -> "cancelled";
            default -> status >= 100 && status < 400 ? "success" : status < 600 && status >= 400 ? "failure" : "unknown";
        };
    }

    static Severity severity(Object value) {
        return isBlank(value) || !(value instanceof String word) ? null : SEVERITIES.get(word.toLowerCase(Locale.ROOT));
    }

    static Severity severityOfOutcome(String outcome) {
        return switch (outcome) {
            case "failure", "timeout" -> SEVERITIES.get("error");
            case "cancelled" -> SEVERITIES.get("warn");
            default -> SEVERITIES.get("info");
        };
    }
}
