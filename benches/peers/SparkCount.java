// Spark Streaming counts the lines of one socket, batch by batch, as its users write it: a peer of `tidemill compare --peers`.
//
//   java ... SparkCount PORT BATCH_MS SECONDS
//
// After each batch with lines it prints `count N`, all lines so far.
import org.apache.spark.SparkConf;
import org.apache.spark.storage.StorageLevel;
import org.apache.spark.streaming.Durations;
import org.apache.spark.streaming.api.java.JavaStreamingContext;

public class SparkCount {
    static long total = 0;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        SparkConf conf = new SparkConf().setAppName("peer").setMaster("local[2]")
            .set("spark.ui.enabled", "false")
            // A new sender is dialled soon after the last one has ended: the first one warms the virtual machine.
            .set("spark.streaming.receiverRestartDelay", "300")
            .set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1");
        JavaStreamingContext context =
            new JavaStreamingContext(conf, Durations.milliseconds(Long.parseLong(args[1])));
        context.socketTextStream("127.0.0.1", port, StorageLevel.MEMORY_ONLY()).foreachRDD(lines -> {
            long count = lines.count();
            if (count > 0) {
                total += count;
                System.out.println("count " + total);
                System.out.flush();
            }
        });
        context.start();
        context.awaitTerminationOrTimeout(Long.parseLong(args[2]) * 1000);
        Runtime.getRuntime().halt(0);
    }
}
