"""The words of the synthetic shop: what it sells, to whom and where."""

import numpy as np
import pandas as pd

COLLECTIONS = (
    "Oak Honey",
    "Lavender",
    "Red Robin",
    "Sea Breeze",
    "Alpine",
    "Rose Garden",
    "Blue Willow",
    "Wild Berry",
    "Lemon Grove",
    "Nordic",
    "Retro Dot",
    "Olive Branch",
    "Moonlight",
    "Sunny Day",
    "Copper Fox",
    "Fern Valley",
    "Vintage",
    "Cherry Blossom",
    "Harbour",
    "Country Barn",
    "Silver Birch",
    "Paisley",
    "Golden Bee",
    "Polka",
    "Mint Leaf",
    "Old Town",
    "Misty Hill",
    "Apple Orchard",
    "Tulip",
    "Little Owl",
    "Velvet",
    "Rainbow",
)
BRANDS = (  # six of each tier: cheap, middle, premium
    "Thriftwell",
    "Daily Basket",
    "Plain & Good",
    "Corner Stock",
    "Saverly",
    "Penny Farthing",
    "Hearth & Field",
    "Millbrook",
    "Greenway",
    "Fairhaven",
    "Larkspur",
    "Copperpot",
    "Maison Ardelle",
    "Goldleaf",
    "Bellwether",
    "Atelier Noor",
    "Kingsmoor",
    "Whitestone",
)
TIERS = np.array([-1.0, 0.0, 1.0])
# category: (day of the year of its peak, height in log-sales, how willingly it is bought again,
# usual price, variants,
#            subcategories with the types of products in each)
CATEGORIES = {
    "Pantry": (
        0,
        0.0,
        1.2,
        1.5,
        "250 g, 500 g, 750 g, 1 kg, Twin Pack, Family Pack",
        (
            "Pasta: Spaghetti, Penne, Noodles; Rice: Basmati Rice, Risotto Rice, Brown Rice;"
            " Sauces: Tomato Sauce, Pesto, Mustard; Spices: Paprika, Curry Powder, Sea Salt;"
            " Baking: Flour, Cake Mix, Oats"
        ),
    ),
    "Bakery": (
        0,
        0.0,
        1.2,
        1.5,
        "Mini, Small, Large, 2 Pack, 4 Pack, 6 Pack",
        (
            "Bread: Rye Loaf, Rolls, Baguette; Cakes: Fruit Cake, Sponge Cake, Muffin; Biscuits:"
            " Shortbread, Oat Biscuits, Ginger Snaps; Pastries: Croissant, Apple Turnover, Scone"
        ),
    ),
    "Drinks": (
        200,
        0.5,
        1.2,
        2.0,
        "Single, 2 Pack, 4 Pack, 6 Pack, 12 Pack, Gift Box",
        (
            "Tea: Black Tea, Green Tea, Herbal Tea; Coffee: Ground Coffee, Espresso Beans, Instant"
            " Coffee; Juice: Apple Juice, Orange Juice, Berry Juice; Soft Drinks: Lemonade, Tonic,"
            " Ginger Beer"
        ),
    ),
    "Sweets": (
        355,
        0.6,
        0.8,
        1.6,
        "100 g, 200 g, 300 g, 400 g, Tin, Gift Box",
        (
            "Chocolate: Dark Chocolate, Milk Chocolate, Truffles; Candy: Toffees, Mints, Fruit"
            " Gums; Jam: Strawberry Jam, Marmalade, Fig Jam; Honey: Clear Honey, Set Honey, Honey"
            " Nuts"
        ),
    ),
    "Bath & Body": (
        0,
        0.0,
        1.0,
        2.1,
        "Travel Size, Classic, Large, Refill, 2 Pack, Gift Set",
        (
            "Soap: Soap Bar, Hand Wash, Soap Flakes; Hair: Shampoo, Conditioner, Hair Oil; "
            "Cream: Hand Cream, Body Lotion, Lip Balm; Bath: Bath Salts, Bubble Bath, Bath Oil"
        ),
    ),
    "Household": (
        0,
        0.0,
        1.0,
        1.9,
        "Small, Medium, Large, 2 Pack, 4 Pack, 8 Pack",
        (
            "Cleaning: Surface Spray, Scouring Cloth, Floor Soap; Laundry: Washing Powder,"
            " Softener, Clothes Pegs; Paper: Napkins, Kitchen Roll, Tissues; Storage: Storage Jar,"
            " Lunch Box, Storage Bag; Pets: Dog Treats, Cat Treats, Bird Seed"
        ),
    ),
    "Kitchen": (
        0,
        0.0,
        -0.3,
        4.2,
        "Small, Medium, Large, Set of 2, Set of 4, Set of 6",
        (
            "Mugs: Enamel Mug, Coffee Mug, Tea Cup; Plates: Dinner Plate, Bowl, Side Plate; "
            "Bakeware: Cake Tin, Pie Dish, Muffin Tray; Utensils: Wooden Spoon, Whisk, Spatula; "
            "Glassware: Tumbler, Wine Glass, Carafe"
        ),
    ),
    "Home Decor": (
        300,
        0.4,
        -0.3,
        5.2,
        "Mini, Small, Medium, Large, Tall, Pair",
        (
            "Candles: Scented Candle, Tea Light Holder, Lantern; Frames: Photo Frame, Mirror, Wall"
            " Print; Cushions: Cushion Cover, Throw, Doormat; Lamps: Table Lamp, Night Light,"
            " Lampshade; Clocks: Wall Clock, Alarm Clock, Hourglass"
        ),
    ),
    "Stationery": (
        245,
        0.7,
        0.3,
        1.7,
        "A4, A5, A6, Pack of 3, Pack of 6, Pack of 12",
        (
            "Notebooks: Notebook, Diary, Sketch Pad; Writing: Pencils, Fountain Pen, Markers;"
            " Cards: Birthday Card, Postcard, Thank-You Card; Gift Wrap: Wrapping Paper, Gift Bag,"
            " Ribbon"
        ),
    ),
    "Toys": (
        350,
        1.0,
        -0.3,
        4.8,
        "Mini, Small, Large, Deluxe, Travel Size, Twin Pack",
        (
            "Puzzles: Jigsaw Puzzle, Wooden Puzzle, Maze; Soft Toys: Teddy Bear, Plush Rabbit, Hand"
            " Puppet; Games: Card Game, Dominoes, Memory Game; Crafts: Painting Kit, Knitting Kit,"
            " Stickers"
        ),
    ),
    "Garden": (
        160,
        1.3,
        -0.2,
        3.9,
        "Mini, Small, Medium, Large, Set of 2, Set of 3",
        (
            "Seeds: Herb Seeds, Flower Seeds, Tomato Seeds; Pots: Plant Pot, Hanging Basket, Window"
            " Box; Tools: Trowel, Watering Can, Garden Gloves; Outdoor: Bird Feeder, Picnic"
            " Blanket, Garden Lantern"
        ),
    ),
    "Christmas": (
        350,
        3.2,
        -3.0,
        2.3,
        "Small, Large, Set of 3, Set of 6, Set of 12, Gift Box",
        (
            "Decorations: Bauble, Paper Star, Wreath; Advent: Advent Calendar, Advent Candle,"
            " Stocking; Lights: Fairy Lights, Candle Arch, Light Chain"
        ),
    ),
}
# Cities lie in their states and countries; the order is city, state, country.
PLACES = np.array(
    [
        p.split("/")
        for p in [
            "London/England/United Kingdom",
            "Manchester/England/United Kingdom",
            "Leeds/England/United Kingdom",
            "Glasgow/Scotland/United Kingdom",
            "Edinburgh/Scotland/United Kingdom",
            "Cardiff/Wales/United Kingdom",
            "Berlin/Berlin/Germany",
            "Munich/Bavaria/Germany",
            "Nuremberg/Bavaria/Germany",
            "Cologne/North Rhine-Westphalia/Germany",
            "Paris/Ile-de-France/France",
            "Lyon/Auvergne-Rhone-Alpes/France",
            "Grenoble/Auvergne-Rhone-Alpes/France",
            "New York/New York/USA",
            "Buffalo/New York/USA",
            "Los Angeles/California/USA",
            "San Diego/California/USA",
            "Austin/Texas/USA",
            "Toronto/Ontario/Canada",
            "Ottawa/Ontario/Canada",
            "Montreal/Quebec/Canada",
            "Sydney/New South Wales/Australia",
            "Newcastle/New South Wales/Australia",
            "Melbourne/Victoria/Australia",
        ]
    ],
    object,
)
COUNTRIES = pd.unique(PLACES[:, 2])
# One in each city; S00 is the web shop.
STORES = np.array([f"S{i + 1:02d}" for i in range(len(PLACES))], object)
GENDERS = np.array(["F", "M", "U"], object)
INCOMES = np.array(["Low", "Medium", "High"], object)
AGE_BANDS = (30, 45, 60)
FIRST_ORDER = {  # field: (values, shares)
    "feedback": (["Excellent", "Good", "Average", "Bad"], [0.3, 0.4, 0.2, 0.1]),
    "shipping_method": (["Standard", "Express", "Same-Day"], [0.5, 0.3, 0.2]),
    "payment_method": (["Credit Card", "Debit Card", "PayPal", "Cash"], [0.35, 0.3, 0.2, 0.15]),
    "order_status": (["Delivered", "Shipped", "Processing", "Pending"], [0.7, 0.15, 0.1, 0.05]),
}
