// Switches the relay on below 19 degrees and off above 21.
const int RELAY = 7;
void loop() {
  float celsius = readSensor();
  if (celsius < 19.0) digitalWrite(RELAY, HIGH);
  if (celsius > 21.0) digitalWrite(RELAY, LOW);
  delay(5000);
}
