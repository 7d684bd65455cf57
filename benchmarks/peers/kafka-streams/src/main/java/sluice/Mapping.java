package sluice;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * From an entry of any shape to its record: the rules of docs/standardization.md as far as the entries of the bench
 * need them, for names that it has never seen as for those that it knows. For one thread.
 *
 * <p>Streaming on both sides, which is the fastest that Jackson has; what a path means is looked up once for each path.
 */
final class Mapping {
    record Result(byte[] key, byte[] line) {}

    private enum Role {
        TIMESTAMP, SERVICE_NAME, EVENT_NAME, OUTCOME, SEVERITY, BODY, DURATION, MEMORY, ROWS, TRANSFER, TRACE_ID, SPAN_ID
    }

    /** What a name stands for: among the leaves of one role the lowest rank wins. */
    private record Meaning(Role role, int rank, String unit) {}

    /** Where a leaf at a path goes: to a role, else to resource or attributes under this name. */
    private record Place(String name, Meaning meaning, boolean resource, int depth) {}

    /** A leaf as it was read; text is null for a number or a truth value. */
    private static final class Leaf {
        private Place place;
        private JsonToken token;
        private String text;
        private long whole;
        private double fraction;

        boolean before(Leaf other) {
            Meaning mine = place.meaning;
            Meaning theirs = other.place.meaning;
            return mine.rank != theirs.rank ? mine.rank < theirs.rank : place.depth < other.place.depth;
        }

        Object value() {
            return switch (token) {
                case VALUE_STRING -> text;
                case VALUE_NUMBER_INT -> whole;
                case VALUE_NUMBER_FLOAT -> fraction;
                case VALUE_TRUE -> Boolean.TRUE;
                case VALUE_FALSE -> Boolean.FALSE;
                default -> null;
            };
        }
    }

    private static final Map<String, Meaning> NAMES = new HashMap<>();

    static {
        name(Role.TIMESTAMP, Values.EPOCH_UNITS,
                "timestamp eventtime eventtimestamp occurredat starttime startedat logtime logtimestamp datetime "
                        + "utctimestamp ts start started time date executedon executedat runat rundate createdat "
                        + "created begin endtime finishedat");
        name(Role.SERVICE_NAME, Set.of(),
                "source servicename service system application app appname sourcesystem component program");
        name(Role.EVENT_NAME, Set.of(),
                "api operation operationname eventname apiname endpoint event action activity task taskname job "
                        + "jobname procedure function name");
        name(Role.OUTCOME, Set.of(),
                "outcome status result state success succeeded issuccess ok statuscode statustext httpstatus "
                        + "httpstatuscode httpresponsestatuscode responsestatus responsestatuscode responsecode "
                        + "exitcode returncode exitstatus");
        name(Role.SEVERITY, Set.of(), "severitytext severity level loglevel levelname lvl levelno");
        name(Role.BODY, Set.of(), "body message msg text logmessage");
        name(Role.DURATION, Values.SECONDS_IN.keySet(),
                "duration durationtime totalduration executiontime elapsed elapsedtime processingtime runtime took "
                        + "timetaken responsetime latency runduration");
        name(Role.MEMORY, Values.BYTES_IN.keySet(),
                "memory memoryused memoryusage usedmemory memorypeak peakmemory maxmemory memorymax mem memused "
                        + "memusage mempeak peakmem maxmem rss maxrss peakrss ram ramused memoryfootprint");
        name(Role.ROWS, Set.of(),
                "rows rowcount rowsprocessed rowcounttotal totalrows rowsaffected recordsprocessed recordcount "
                        + "itemcount itemsprocessed records items documents lines nbrows nbrecords rowsread "
                        + "rowswritten");
        name(Role.TRANSFER, Values.BYTES_IN.keySet(),
                "transferbytes bytestransferred transferred datatransferred bytesprocessed transfersize bytes "
                        + "bytessent bytesreceived contentlength payload payloadsize responsesize filesize datasize "
                        + "size volume");
        name(Role.TRACE_ID, Set.of(), "traceid oteltraceid");
        name(Role.SPAN_ID, Set.of(), "spanid otelspanid");
    }

    private static void name(Role role, Set<String> units, String words) {
        int order = 0;
        for (String word : words.split(" ")) {
            NAMES.putIfAbsent(word, new Meaning(role, 2 * order + 1, ""));
            for (String unit : units) {
                if (unit.length() > 1) {
                    NAMES.putIfAbsent(word + unit, new Meaning(role, 2 * order, unit));
                }
            }
            order++;
        }
    }

    private static final Set<String> WRAPPERS = Set.of(
            "metrics", "metadata", "meta", "fields", "data", "event", "log", "result", "run", "job", "execution",
            "stats", "statistics", "performance", "usage", "details", "properties", "attributes", "context", "info",
            "payload", "record", "entry", "timing", "timings", "operation", "task", "activity", "refresh");
    private static final Map<String, String> RESOURCES = Map.ofEntries(
            Map.entry("host", "host.name"), Map.entry("hostname", "host.name"), Map.entry("servername", "host.name"),
            Map.entry("machinename", "host.name"), Map.entry("environment", "deployment.environment.name"),
            Map.entry("env", "deployment.environment.name"), Map.entry("serviceversion", "service.version"),
            Map.entry("appversion", "service.version"), Map.entry("containerid", "container.id"),
            Map.entry("containername", "container.name"), Map.entry("container", "container.name"),
            Map.entry("pod", "k8s.pod.name"), Map.entry("podname", "k8s.pod.name"), Map.entry("region", "cloud.region"));
    private static final String[] RESOURCE_PREFIXES = {
        "resource.", "host.", "os.", "container.", "k8s.", "cloud.", "deployment.", "service."
    };

    private final JsonFactory json = new JsonFactory();
    private final ByteArrayOutputStream out = new ByteArrayOutputStream(1024);
    private final Map<String, Place> places = new HashMap<>();
    private final Map<String, byte[]> keys = new HashMap<>();
    private final StringBuilder path = new StringBuilder();
    private final Leaf[] best = new Leaf[Role.values().length];
    private Leaf[] leaves = new Leaf[32];
    private int count;

    Result record(byte[] entry, int partition, long offset, long observedMs, byte[] run) throws IOException {
        read(entry);
        java.util.Arrays.fill(best, null);
        for (int at = 0; at < count; at++) {
            Leaf leaf = leaves[at];
            Meaning meaning = leaf.place.meaning;
            if (meaning != null) {
                Leaf other = best[meaning.role.ordinal()];
                if (other == null || leaf.before(other)) {
                    best[meaning.role.ordinal()] = leaf;
                }
            }
        }
        return write(partition, offset, observedMs, run);
    }

    private Leaf best(Role role) {
        return best[role.ordinal()];
    }

    private String textOf(Role role, String otherwise) {
        Leaf leaf = best(role);
        Object value = leaf == null ? null : leaf.value();
        return value == null || Values.isBlank(value) ? otherwise : value.toString().strip();
    }

    private Result write(int partition, long offset, long observedMs, byte[] run) throws IOException {
        out.reset();
        String observed = Instant.ofEpochMilli(observedMs).toString();
        String service = textOf(Role.SERVICE_NAME, "unknown");
        String event = textOf(Role.EVENT_NAME, "unknown");
        Leaf ended = best(Role.OUTCOME);
        Values.Ended outcome = ended == null ? null : Values.outcome(ended.value());
        String word = outcome == null ? "unknown" : outcome.outcome();
        try (JsonGenerator to = json.createGenerator(out)) {
            to.writeStartObject();
            to.writeStringField("record_id", "00000000-" + partition + "-" + offset + "-0");
            Leaf at = best(Role.TIMESTAMP);
            String time = at == null ? null : Values.timestamp(at.value(), at.place.meaning.unit);
            to.writeStringField("timestamp", time == null ? observed : time);
            to.writeStringField("observed_timestamp", observed);
            to.writeStringField("service_name", service);
            to.writeStringField("event_name", event);
            to.writeStringField("outcome", word);
            if (run != null) {
                to.writeStringField("run_id", new String(run, StandardCharsets.UTF_8));
            }
            Leaf said = best(Role.SEVERITY);
            Values.Severity severity = said == null ? null : Values.severity(said.value());
            severity = severity == null ? Values.severityOfOutcome(word) : severity;
            if (severity.number() != 9) {
                to.writeNumberField("severity_number", severity.number());
            }
            if (!severity.text().equals("INFO")) {
                to.writeStringField("severity_text", severity.text());
            }
            Leaf body = best(Role.BODY);
            if (body != null && body.value() != null) {
                to.writeStringField("body", body.value().toString());
            }
            Leaf duration = best(Role.DURATION);
            Double seconds = duration == null ? null : Values.duration(duration.value(), duration.place.meaning.unit);
            if (seconds != null) {
                to.writeNumberField("duration_s", seconds);
            }
            writeSize(to, "memory_bytes", best(Role.MEMORY));
            Leaf rows = best(Role.ROWS);
            Long number = rows == null ? null : Values.count(rows.value());
            if (number != null) {
                to.writeNumberField("rows", number);
            }
            writeSize(to, "transfer_bytes", best(Role.TRANSFER));
            writeIdentifier(to, "trace_id", best(Role.TRACE_ID));
            writeIdentifier(to, "span_id", best(Role.SPAN_ID));
            writeOthers(to, "resource", true, null);
            writeOthers(to, "attributes", false, outcome != null && outcome.stays() ? ended : null);
            to.writeEndObject();
        }
        String names = service + "/" + event;
        byte[] key = keys.get(names);
        if (key == null) {
            key = names.getBytes(StandardCharsets.UTF_8);
            if (keys.size() < 4096) {
                keys.put(names, key);
            }
        }
        return new Result(key, out.toByteArray());
    }

    private static void writeSize(JsonGenerator to, String field, Leaf leaf) throws IOException {
        Long bytes = leaf == null ? null : Values.size(leaf.value(), leaf.place.meaning.unit);
        if (bytes != null) {
            to.writeNumberField(field, bytes);
        }
    }

    private static void writeIdentifier(JsonGenerator to, String field, Leaf leaf) throws IOException {
        Object value = leaf == null ? null : leaf.value();
        if (value != null && !Values.isBlank(value)) {
            to.writeStringField(field, value.toString().replace("-", "").toLowerCase(Locale.ROOT));
        }
    }

    /** The leaves that fill no field, and one that fills a field but says more. */
    private void writeOthers(JsonGenerator to, String field, boolean resource, Leaf stays) throws IOException {
        boolean open = false;
        for (int at = 0; at < count; at++) {
            Leaf leaf = leaves[at];
            Meaning meaning = leaf.place.meaning;
            boolean taken = meaning != null && best[meaning.role.ordinal()] == leaf;
            if (taken ? leaf != stays : leaf.place.resource != resource) {
                continue;
            }
            if (!open) {
                to.writeObjectFieldStart(field);
                open = true;
            }
            to.writeFieldName(leaf.place.name);
            switch (leaf.token) {
                case VALUE_STRING -> to.writeString(leaf.text);
                case VALUE_NUMBER_INT -> to.writeNumber(leaf.whole);
                case VALUE_NUMBER_FLOAT -> to.writeNumber(leaf.fraction);
                case VALUE_TRUE -> to.writeBoolean(true);
                case VALUE_FALSE -> to.writeBoolean(false);
                default -> to.writeNull();
            }
        }
        if (open) {
            to.writeEndObject();
        }
    }

    private void read(byte[] entry) throws IOException {
        count = 0;
        path.setLength(0);
        try (JsonParser from = json.createParser(entry)) {
            if (from.nextToken() != JsonToken.START_OBJECT) {
                throw new IOException("not a JSON object");
            }
            readObject(from, 1);
        }
    }

    private void readObject(JsonParser from, int depth) throws IOException {
        int outer = path.length();
        while (from.nextToken() != JsonToken.END_OBJECT) {
            if (depth > 1) {
                path.append('\u0000');
            }
            path.append(from.currentName());
            JsonToken token = from.nextToken();
            if (token == JsonToken.START_OBJECT) {
                readObject(from, depth + 1);
            } else {
                Leaf leaf = next();
                leaf.token = token;
                leaf.place = place(depth);
                switch (token) {
                    case VALUE_STRING -> leaf.text = from.getText();
                    case VALUE_NUMBER_INT -> leaf.whole = from.getLongValue();
                    case VALUE_NUMBER_FLOAT -> leaf.fraction = from.getDoubleValue();
                    case START_ARRAY -> {
                        StringWriter text = new StringWriter();
                        try (JsonGenerator copy = json.createGenerator(text)) {
                            copy.copyCurrentStructure(from);
                        }
                        leaf.token = JsonToken.VALUE_STRING;
                        leaf.text = text.toString();
                    }
                    default -> { }
                }
            }
            path.setLength(outer);
        }
    }

    private Leaf next() {
        if (count == leaves.length) {
            leaves = java.util.Arrays.copyOf(leaves, 2 * count);
        }
        if (leaves[count] == null) {
            leaves[count] = new Leaf();
        }
        return leaves[count++];
    }

    private Place place(int depth) {
        String where = path.toString();
        Place known = places.get(where);
        if (known == null) {
            known = placeOf(where.split("\u0000"), depth);
            if (places.size() < 10_000) {
                places.put(where, known);
            }
        }
        return known;
    }

    private static Place placeOf(String[] parts, int depth) {
        String name = String.join(".", parts);
        String[] folded = new String[parts.length];
        for (int at = 0; at < parts.length; at++) {
            folded[at] = folded(parts[at]);
        }
        for (int begin = 0; begin < folded.length; begin++) {
            String rest = String.join("", java.util.Arrays.asList(folded).subList(begin, folded.length));
            Meaning found = NAMES.get(rest);
            if (found != null) {
                return new Place(name, found, false, depth);
            }
            if (!WRAPPERS.contains(folded[begin])) {
                break;
            }
        }
        for (String prefix : RESOURCE_PREFIXES) {
            if (name.startsWith(prefix)) {
                return new Place(name, null, true, depth);
            }
        }
        String resource = parts.length == 1 ? RESOURCES.get(folded[0]) : null;
        return new Place(resource == null ? name : resource, null, resource != null, depth);
    }

    private static String folded(String name) {
        return name.replaceFirst("(?:[\\W_]+[sS]\\W*|(?<=[a-z])S)$", "seconds")
                .replaceAll("[\\W_]+", "")
                .toLowerCase(Locale.ROOT);
    }
}
