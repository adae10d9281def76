// Flink counts the lines of one socket in tumbling windows of processing time, as its users write it: a peer of
// `tidemill compare --peers`.
//
//   java ... FlinkCount PORT WINDOW_MS SECONDS
//
// After each window with lines it prints `count N`, all lines so far.
import java.net.ConnectException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.source.legacy.SocketTextStreamFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingProcessingTimeWindows;

public class FlinkCount {
    static final AtomicLong total = new AtomicLong();

    /** Flink's own source of lines, which also dials again after a refusal and after the end of a sender. */
    static class Lines extends SocketTextStreamFunction {
        Lines(int port) {
            super("127.0.0.1", port, "\n", -1, 300);
        }

        @Override
        public void run(SourceContext<String> context) throws Exception {
            while (true) {
                try {
                    super.run(context);
                    return;
                } catch (ConnectException refused) {
                    Thread.sleep(100);
                }
            }
        }
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        Duration window = Duration.ofMillis(Long.parseLong(args[1]));
        StreamExecutionEnvironment env =
            StreamExecutionEnvironment.createLocalEnvironment(2, new Configuration());
        env.addSource(new Lines(port)).setParallelism(1)
            .map(line -> 1L).returns(Types.LONG)
            .windowAll(TumblingProcessingTimeWindows.of(window))
            .reduce(Long::sum)
            .map(FlinkCount::counted).returns(Types.LONG)
            .sinkTo(new DiscardingSink<>());
        env.executeAsync("peer");
        Thread.sleep(Long.parseLong(args[2]) * 1000);
        Runtime.getRuntime().halt(0);
    }

    static Long counted(Long count) {
        System.out.println("count " + total.addAndGet(count));
        System.out.flush();
        return count;
    }
}
